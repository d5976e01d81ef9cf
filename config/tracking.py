"""The `tracking` section: what is recorded and where it goes."""

from typing import Literal

from pydantic import Field

from .base import Section


class WandbConfig(Section):
    """Weights & Biases."""

    mode: Literal["offline", "disabled"] = "offline"
    """offline: recorded in the run directory, uploaded later with `wandb sync`; disabled: nothing."""
    project: str = Field(default="trainwright", min_length=1)
    """W&B project."""


class TrackingConfig(Section):
    """Metrics of this run."""

    wandb: WandbConfig = WandbConfig()
    """Weights & Biases settings."""
    expert_load_every: int = Field(default=10, ge=1)
    """Steps from one record of every expert's load to the next; its maximum is recorded at every step."""
