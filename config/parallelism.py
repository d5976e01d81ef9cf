"""The `parallelism` section: how ranks share the model."""

from typing import Annotated, Literal

from pydantic import Field

from .base import Section


class ParallelismConfig(Section):
    """Sizes of the parallel axes; data parallel follows from the world size."""

    engine: Literal["megatron", "deepspeed"] = "megatron"
    """Training engine. deepspeed trains transformers' own model of the same config.json, under ZeRO."""
    tensor: int = Field(default=1, ge=1)
    """Tensor parallel size: ranks that share each matrix."""
    pipeline: int = Field(default=1, ge=1)
    """Pipeline parallel size: stages that share the layers."""
    virtual_pipeline: int = Field(default=1, ge=1)
    """Virtual pipeline size: model chunks that each stage holds, so that stages wait less for each other (interleaved
    schedule). The micro batches of a step must be a multiple of pipeline then."""
    stage_layers: list[Annotated[int, Field(ge=1)]] | None = None
    """Layers of each stage in the model's order, such as [7, 8, 8, 5]; with virtual_pipeline of each chunk, the
    first of stage 0, the first of stage 1, and so on. null: all the same."""
    context: int = Field(default=1, ge=1)
    """Context parallel size: ranks that share the positions of each sample, for long sequences. With megatron each has
    its own queries and gathers the keys and values of all; with deepspeed each gets all positions of some heads
    (Ulysses)."""
    expert: int = Field(default=1, ge=1)
    """Expert parallel size: data parallel ranks that share the experts of each layer."""
    expert_tensor: int = Field(default=1, ge=1)
    """Tensor parallel size inside each expert: 1, or the same as tensor."""
    sequence: bool = False
    """Sequence parallel: tensor ranks also share the activations outside matrix products. No effect at tensor 1."""
    zero: Literal[0, 1, 2, 3] = 1
    """What data parallel and context ranks share: 0 nothing (megatron only), 1 the optimizer's state (megatron's
    distributed optimizer), 2 gradients too, 3 weights too (2 and 3: deepspeed only)."""
    overlap: bool = False
    """Reduce gradients while the backward pass goes on, and gather the weights that data ranks share while the forward
    pass does. The results are the same; memory and bandwidth are shared with the computation."""
    transformer_engine: Literal["auto", "always", "never"] = "auto"
    """Whether megatron's norms and linear layers are Transformer Engine's. auto: where it is installed and there is a
    GPU. The checkpoint is the same."""
    offload: Literal["none", "cpu", "nvme"] = "none"
    """Where deepspeed keeps the optimizer's state: with the weights, in the node's memory, or on its disks (zero 3)."""
    offload_folder: str | None = None
    """Folder on each node's own disk for `offload: nvme`."""
