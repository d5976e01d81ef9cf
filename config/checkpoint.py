"""The `checkpoint` section: when to save, how many to keep."""

from pydantic import Field, model_validator

from .base import Section


class CheckpointConfig(Section):
    """Checkpoints of this run."""

    every_steps: int | None = Field(default=None, ge=1)
    """Save every so many steps; the last step is always saved."""
    keep: int = Field(default=2, ge=1)
    """Newest checkpoints kept; older ones are removed after the next is committed."""
    resume_from: str | None = None
    """Checkpoint folder or RUN[@STEP] to go on from (weights, optimizer, step, position) while this run has none."""
    init_from: str | None = None
    """Hugging Face folder whose weights training starts from, relative to the run file; without it they are random."""

    @model_validator(mode="after")
    def _one_start(self) -> "CheckpointConfig":
        if self.resume_from is not None and self.init_from is not None:
            raise ValueError(f"init_from: {self.init_from} is given beside resume_from ({self.resume_from})")
        return self
