"""How ranks map to the parallel axes, and the rules that a layout must keep. Arithmetic only, no torch."""

from dataclasses import dataclass

from .errors import UserError
from .model import ModelShape
from .run import RunConfig


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """Place of one rank on each axis."""

    tensor: int
    data: int
    pipeline: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Sizes of the parallel axes. Tensor ranks are neighbours, pipeline stages are farthest apart."""

    tensor: int
    pipeline: int
    data: int

    @property
    def world_size(self) -> int:
        return self.tensor * self.pipeline * self.data

    def coordinates(self, rank: int) -> Coordinates:
        """Place of `rank`: tensor varies fastest, then data, then pipeline (megatron-core's order tp-dp-pp)."""
        rest, tensor = divmod(rank, self.tensor)
        pipeline, data = divmod(rest, self.data)
        return Coordinates(tensor=tensor, data=data, pipeline=pipeline)

    def layers_of(self, stage: int, num_layers: int) -> range:
        """Global numbers of the layers that a pipeline stage holds."""
        per_stage = num_layers // self.pipeline
        return range(stage * per_stage, (stage + 1) * per_stage)


def layout_of(run: RunConfig, model: ModelShape) -> Layout:
    """The layout that the run file asks for, after checking every rule.

    Raises UserError naming the field that breaks a rule, its value and the nearest values that keep it.
    """
    parallel, train, world = run.parallelism, run.train, run.cluster.world_size
    model_ranks = parallel.tensor * parallel.pipeline
    _heads_rule(parallel.tensor, model)
    _divides("parallelism.pipeline", parallel.pipeline, "num_hidden_layers", model.num_layers)
    if world % model_ranks:
        raise UserError(
            "parallelism",
            f"tensor {parallel.tensor} x pipeline {parallel.pipeline} does not divide the world size {world} "
            f"(cluster.nodes {run.cluster.nodes} x cluster.ranks_per_node {run.cluster.ranks_per_node})",
            f"make the world size a multiple of {model_ranks}, or shrink tensor or pipeline",
        )
    layout = Layout(tensor=parallel.tensor, pipeline=parallel.pipeline, data=world // model_ranks)
    per_pass = train.micro_batch_size * layout.data
    if train.global_batch_size % per_pass:
        below = train.global_batch_size // per_pass * per_pass
        nearest = f"{below} or {below + per_pass}" if below else str(per_pass)
        raise UserError(
            "train.global_batch_size",
            f"{train.global_batch_size} is not a multiple of micro_batch_size {train.micro_batch_size} x data parallel "
            f"{layout.data}",
            f"use {nearest}",
        )
    if parallel.sequence and run.data.sequence_length % parallel.tensor:
        raise UserError(
            "data.sequence_length",
            f"{run.data.sequence_length} is not a multiple of parallelism.tensor {parallel.tensor}",
            "sequence parallel needs that; change the length or set parallelism.sequence=false",
        )
    if run.data.sequence_length > model.max_positions:
        raise UserError(
            "data.sequence_length",
            f"{run.data.sequence_length} is more than the model's max_position_embeddings {model.max_positions}",
            "shorten the sequences or raise max_position_embeddings",
        )
    return layout


def _heads_rule(tensor: int, model: ModelShape) -> None:
    _divides("parallelism.tensor", tensor, "num_attention_heads", model.num_heads)
    _divides("parallelism.tensor", tensor, "intermediate_size", model.ffn_size)
    kv = model.num_kv_heads
    if kv % tensor and tensor % kv:
        good = [size for size in range(1, model.num_heads + 1) if kv % size == 0 or size % kv == 0]
        good = [size for size in good if model.num_heads % size == 0]
        raise UserError("parallelism.tensor", f"{tensor} fits no way over {kv} key-value heads", f"use one of {good}")


def _divides(field: str, value: int, name: str, total: int) -> None:
    if total % value:
        good = [size for size in range(1, total + 1) if total % size == 0 and size <= 4 * value]
        raise UserError(field, f"{value} does not divide the model's {name} {total}", f"use one of {good}")
