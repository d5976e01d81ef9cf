"""How ranks map to the parallel axes. Arithmetic only, no torch."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """Place of one rank on each axis. The expert axes divide the ranks of a pipeline stage in a second way."""

    tensor: int
    context: int
    """Which two chunks of each sample's positions."""
    data: int
    pipeline: int
    expert: int
    """Which share of each layer's experts."""
    expert_tensor: int
    """Which share of each expert's matrices."""
    expert_data: int
    """Which copy of that share."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Sizes of the parallel axes. Tensor ranks are neighbours, pipeline stages are farthest apart."""

    tensor: int
    pipeline: int
    data: int
    context: int = 1
    """Ranks that share each sample's positions."""
    expert: int = 1
    expert_tensor: int = 1
    virtual_pipeline: int = 1
    """Model chunks of each pipeline stage: chunk c of stage s is number c * pipeline + s in the model's order."""
    chunk_layers: tuple[int, ...] = ()
    """Layers of each chunk in the model's order; empty: all the same."""

    @property
    def world_size(self) -> int:
        return self.ranks_per_stage * self.pipeline

    @property
    def ranks_per_stage(self) -> int:
        """Ranks of one pipeline stage."""
        return self.tensor * self.context * self.data

    @property
    def expert_data(self) -> int:
        """Copies of each expert."""
        return self.ranks_per_stage // (self.expert * self.expert_tensor)

    def length_unit(self, *, sequence: bool) -> int:
        """What a sample's tokens must be a multiple of: two chunks for each context rank, shares for tensor ranks."""
        shares = self.tensor if sequence else 1
        return math.lcm(2, shares) * self.context if self.context > 1 else shares

    def sizes(self) -> dict[str, int]:
        """The axes by name, as plans and manifests show them; the others only where they are more than 1."""
        axes = {"tensor": self.tensor, "pipeline": self.pipeline, "data": self.data}
        extra = {
            "context": self.context,
            "virtual_pipeline": self.virtual_pipeline,
            "expert": self.expert,
            "expert_tensor": self.expert_tensor,
        }
        return axes | {name: size for name, size in extra.items() if size > 1}

    def coordinates(self, rank: int) -> Coordinates:
        """Place of `rank` in megatron-core's order tp-cp-ep-dp-pp.

        Tensor varies fastest, then context, data, pipeline; and within a stage expert tensor, then expert, then copies.
        """
        rest, tensor = divmod(rank, self.tensor)
        rest, context = divmod(rest, self.context)
        pipeline, data = divmod(rest, self.data)
        in_stage, expert_tensor = divmod(rank % self.ranks_per_stage, self.expert_tensor)
        expert_data, expert = divmod(in_stage, self.expert)
        return Coordinates(
            tensor=tensor,
            context=context,
            data=data,
            pipeline=pipeline,
            expert=expert,
            expert_tensor=expert_tensor,
            expert_data=expert_data,
        )

    def experts_of(self, place: Coordinates, num_experts: int) -> range:
        """Global numbers of the experts that a rank holds of each layer."""
        per_rank = num_experts // self.expert
        return range(place.expert * per_rank, (place.expert + 1) * per_rank)

    def layers_of(self, stage: int, num_layers: int, chunk: int = 0) -> range:
        """Global numbers of the layers of one chunk of a pipeline stage."""
        num_chunks = self.pipeline * self.virtual_pipeline
        counts = self.chunk_layers or (num_layers // num_chunks,) * num_chunks
        number = chunk * self.pipeline + stage
        start = sum(counts[:number])
        return range(start, start + counts[number])

    def chunks_of(self, stage: int, num_layers: int) -> list[range]:
        """Global numbers of the layers of each chunk of a pipeline stage."""
        return [self.layers_of(stage, num_layers, chunk) for chunk in range(self.virtual_pipeline)]


def nearly_even(layers: int, num_chunks: int) -> list[int]:
    """Layers of each chunk, alike to one; the last stages, one of which has the output layer too, get less."""
    share, more = divmod(layers, num_chunks)
    return [share + 1] * more + [share] * (num_chunks - more)
