"""The `tracking` section: what is recorded and where it goes."""

from typing import Literal

from pydantic import Field

from .base import Section


class WandbConfig(Section):
    """Weights & Biases."""

    mode: Literal["offline", "online", "disabled"] = "offline"
    """offline: recorded in the run directory, uploaded later with `trainwright sync`; online: uploaded while training,
    if there is a network and a key (in ~/.netrc, or WANDB_API_KEY named in cluster.environment); disabled: nothing."""
    project: str = Field(default="trainwright", min_length=1)
    """W&B project."""
    entity: str | None = Field(default=None, min_length=1)
    """W&B user or team that gets the run; by default that of the key."""
    group: str | None = Field(default=None, min_length=1)
    """W&B group, under which runs are shown together."""
    tags: list[str] = Field(default_factory=list)
    """W&B tags."""
    notes: str | None = None
    """What W&B shows as the run's notes."""


class TrackingConfig(Section):
    """Metrics of this run."""

    wandb: WandbConfig = WandbConfig()
    """Weights & Biases settings."""
    expert_load_every: int = Field(default=10, ge=1)
    """Steps from one record of every expert's load to the next; its maximum is recorded at every step. With 1, also how
    near the nearest routing decision was to another."""
