"""How ranks map to the parallel axes. Arithmetic only, no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """Place of one rank on each axis. The expert axes divide the ranks of a pipeline stage in a second way."""

    tensor: int
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
    expert: int = 1
    expert_tensor: int = 1
    virtual_pipeline: int = 1
    """Model chunks of each pipeline stage: chunk c of stage s is number c * pipeline + s in the model's order."""
    chunk_layers: tuple[int, ...] = ()
    """Layers of each chunk in the model's order; empty: all the same."""

    @property
    def world_size(self) -> int:
        return self.tensor * self.pipeline * self.data

    @property
    def expert_data(self) -> int:
        """Copies of each expert."""
        return self.tensor * self.data // (self.expert * self.expert_tensor)

    def sizes(self) -> dict[str, int]:
        """The axes by name, as plans and manifests show them; the last three only where they are more than 1."""
        axes = {"tensor": self.tensor, "pipeline": self.pipeline, "data": self.data}
        extra = {
            "virtual_pipeline": self.virtual_pipeline,
            "expert": self.expert,
            "expert_tensor": self.expert_tensor,
        }
        return axes | {name: size for name, size in extra.items() if size > 1}

    def coordinates(self, rank: int) -> Coordinates:
        """Place of `rank` in megatron-core's order tp-cp-ep-dp-pp.

        Tensor varies fastest, then data, then pipeline; and within a stage expert tensor, then expert, then copies.
        """
        rest, tensor = divmod(rank, self.tensor)
        pipeline, data = divmod(rest, self.data)
        in_stage, expert_tensor = divmod(rank % (self.tensor * self.data), self.expert_tensor)
        expert_data, expert = divmod(in_stage, self.expert)
        return Coordinates(
            tensor=tensor,
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
