"""The engine that a run file asks for: the one place that builds one, after `prepare`, once the ranks have joined."""

import os

from ..config.errors import UserError
from ..config.layout import Layout
from ..config.model import ModelShape
from ..config.run import RunConfig
from .engine import Engine


def prepare(run: RunConfig) -> None:
    """Make the engine's packages importable and usable on this machine. UserError if they are not installed."""
    engine = run.parallelism.engine
    if run.train.deterministic:
        _only_deterministic()
    try:
        if engine == "deepspeed":
            from .deepspeed.compat import prepare as prepare_deepspeed

            prepare_deepspeed()
        else:
            from . import compat

            compat.prepare()
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("deepspeed", "megatron"):
            raise
        remedy = f"pip install 'trainwright[{'deepspeed' if engine == 'deepspeed' else 'train'}]'"
        raise UserError("parallelism.engine", f"{engine} is not installed here", remedy) from None


def _only_deterministic() -> None:
    """torch refuses operations that may give other bits another time; cuBLAS is told before CUDA starts."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def build_engine(run: RunConfig, model: ModelShape, layout: Layout, rank: int) -> Engine:
    """One rank's engine, its weights not loaded yet. Every rank of the layout must build its own."""
    if run.parallelism.engine == "deepspeed":
        from .deepspeed.engine import DeepSpeedEngine

        return DeepSpeedEngine(run, model, layout, rank)
    from .megatron.engine import MegatronEngine

    return MegatronEngine(run, model, layout, rank)
