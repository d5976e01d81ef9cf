"""The `checkpoint` section: when to save, how many to keep."""

from pydantic import Field

from .base import Section


class CheckpointConfig(Section):
    """Checkpoints of this run."""

    every_steps: int | None = Field(default=None, ge=1)
    """Save every so many steps; the last step is always saved."""
    keep: int = Field(default=2, ge=1)
    """Newest checkpoints kept; older ones are removed after the next is committed."""
    resume_from: str | None = None
    """Checkpoint folder or RUN[@STEP] to go on from (weights, optimizer, step, position) while this run has none."""
