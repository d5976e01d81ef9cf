"""The engine that a run file asks for: the one place that builds one.

Call compat.prepare() and join the ranks first.
"""

from ..config.layout import Layout
from ..config.model import ModelShape
from ..config.run import RunConfig
from .engine import Engine


def build_engine(run: RunConfig, model: ModelShape, layout: Layout, rank: int) -> Engine:
    """One rank's engine, its weights not loaded yet. Every rank of the layout must build its own."""
    from .megatron.engine import MegatronEngine  # imports megatron, so only after compat.prepare()

    return MegatronEngine(run, model, layout, rank)
