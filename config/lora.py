"""The `train.lora` section: adapters of low rank in place of training all weights."""

from typing import Literal

from pydantic import Field, field_validator

from .base import Section

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
OF_FEED_FORWARD: tuple[Target, ...] = ("gate_proj", "up_proj", "down_proj")


class LoraConfig(Section):
    """Beside each matrix W of some kinds a product of two narrow ones is trained, W + alpha / rank x B A, and nothing
    else (https://arxiv.org/abs/2106.09685). W comes from checkpoint.init_from."""

    rank: int = Field(default=16, ge=1)
    """Columns of B and rows of A."""
    alpha: float = Field(default=32.0, gt=0, allow_inf_nan=False)
    """The product is scaled by alpha / rank."""
    targets: list[Target] = Field(default=["q_proj", "k_proj", "v_proj", "o_proj"], min_length=1)
    """Which matrices of a layer: those of attention, those of a dense feed-forward, or both."""

    @field_validator("targets")
    @classmethod
    def _each_once(cls, targets: list[Target]) -> list[Target]:
        if len(set(targets)) < len(targets):
            raise ValueError(f"targets: {targets} names one twice")
        return targets
