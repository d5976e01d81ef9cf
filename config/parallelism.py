"""The `parallelism` section: how ranks share the model."""

from typing import Literal

from pydantic import Field

from .base import Section


class ParallelismConfig(Section):
    """Sizes of the parallel axes; data parallel follows from the world size."""

    engine: Literal["megatron"] = "megatron"
    """Training engine."""
    tensor: int = Field(default=1, ge=1)
    """Tensor parallel size: ranks that share each matrix."""
    pipeline: int = Field(default=1, ge=1)
    """Pipeline parallel size: stages that share the layers."""
    expert: int = Field(default=1, ge=1)
    """Expert parallel size: data parallel ranks that share the experts of each layer."""
    expert_tensor: int = Field(default=1, ge=1)
    """Tensor parallel size inside each expert: 1, or the same as tensor."""
    sequence: bool = False
    """Sequence parallel: tensor ranks also share the activations outside matrix products. No effect at tensor 1."""
    zero: Literal[0, 1] = 1
    """1: the distributed optimizer, its state shared by data parallel ranks (ZeRO 1); 0: every rank holds all of it."""
