"""Differences between megatron-core versions and environments, in one place.

Import megatron only after `prepare()`. Each mend names the reason; each has a test that fails without it.
"""

import contextlib
import functools
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from ..config.errors import UserError


@functools.cache  # the stand-ins wrap what they find: twice would be wrong
def prepare() -> None:
    """Make megatron-core importable and usable on this machine (CUDA or CPU)."""
    with warnings.catch_warnings(), _absent("wandb"):
        # Where Transformer Engine and Apex are missing we have layers of our own.
        warnings.simplefilter("ignore")
        if not torch.cuda.is_available():
            _prepare_cpu()
        import megatron.core.transformer.moe.moe_utils as moe_utils
    if not hasattr(moe_utils, "te_general_gemm"):
        moe_utils.te_general_gemm = None  # the router asks whether it is None, but without TE the name is not there


def with_transformer_engine(choice: str) -> bool:
    """Whether layers are Transformer Engine's, by the run's parallelism.transformer_engine.

    Raises UserError if they must be and it is not there.
    """
    import megatron.core.extensions.transformer_engine as extension

    if choice == "always" and not extension.HAVE_TE:
        remedy = "install transformer-engine there, or use auto"
        raise UserError("parallelism.transformer_engine", "always, and it cannot be imported on this node", remedy)
    return bool(extension.HAVE_TE) and (choice == "always" or (choice == "auto" and torch.cuda.is_available()))


@contextlib.contextmanager
def _absent(package: str) -> Iterator[None]:
    """Importing a package fails meanwhile, unless it is imported already.

    megatron-core's inference, which we never call, imports W&B wherever it finds it: a second of every start.
    """
    hidden = package not in sys.modules
    if hidden:
        sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules[package]


def _prepare_cpu() -> None:
    from .megatron.cpu_standins import install

    install()
    # megatron decorates fused functions that we never call with torch.compile; importing the compiler takes seconds.
    compiler: Any = torch.compile
    torch.compile = lambda function=None, **_: function if function else lambda inner: inner  # type: ignore[assignment]
    try:
        import megatron.core.models.gpt  # noqa: F401
        import megatron.core.tensor_parallel.random as megatron_random
    finally:
        torch.compile = compiler
    # Recompute saves and restores "the CUDA generator": here that is the CPU's.
    megatron_random._get_cuda_rng_state = lambda *_, **__: torch.get_rng_state()
    megatron_random._set_cuda_rng_state = lambda state, *_, **__: torch.set_rng_state(state)


def set_adam_step(optimizer: Any, state: dict[str, Any], group: dict[str, Any], step: int) -> None:
    """Tell AdamW how many steps are done, for one parameter.

    torch keeps a step tensor per parameter; fused Adam (Apex, Transformer Engine) keeps one number per group. One
    shared tensor would be counted up once per parameter (what megatron-core's own loading does without those two).
    """
    if isinstance(optimizer, torch.optim.AdamW):
        state["step"] = torch.tensor(float(step), dtype=torch.float32)
    else:
        group["step"] = step
