"""How ranks map to the parallel axes, and the rules that a layout must keep. Arithmetic only, no torch."""

from dataclasses import dataclass

from .errors import UserError
from .model import ModelShape
from .run import RunConfig


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

    @property
    def world_size(self) -> int:
        return self.tensor * self.pipeline * self.data

    @property
    def expert_data(self) -> int:
        """Copies of each expert."""
        return self.tensor * self.data // (self.expert * self.expert_tensor)

    def sizes(self) -> dict[str, int]:
        """The axes by name, as plans and manifests show them; the expert axes only where they are more than 1."""
        axes = {"tensor": self.tensor, "pipeline": self.pipeline, "data": self.data}
        extra = {"expert": self.expert, "expert_tensor": self.expert_tensor}
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
    layout = Layout(
        tensor=parallel.tensor,
        pipeline=parallel.pipeline,
        data=world // model_ranks,
        expert=parallel.expert,
        expert_tensor=parallel.expert_tensor,
    )
    _experts_rule(run, model, layout)
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
    if model.experts is None or len(model.experts.layers) < model.num_layers:
        _divides("parallelism.tensor", tensor, "intermediate_size", model.ffn_size)
    kv = model.num_kv_heads
    if kv % tensor and tensor % kv:
        good = [size for size in range(1, model.num_heads + 1) if kv % size == 0 or size % kv == 0]
        good = [size for size in good if model.num_heads % size == 0]
        raise UserError("parallelism.tensor", f"{tensor} fits no way over {kv} key-value heads", f"use one of {good}")


def _experts_rule(run: RunConfig, model: ModelShape, layout: Layout) -> None:
    experts, router = model.experts, run.train.router
    if experts is None:
        for field, value, neutral in (
            ("parallelism.expert", layout.expert, 1),
            ("parallelism.expert_tensor", layout.expert_tensor, 1),
            ("train.router.aux_loss_coef", router.aux_loss_coef, None),
            ("train.router.z_loss_coef", router.z_loss_coef, 0.0),
        ):
            if value != neutral:
                raise UserError(field, f"{value}, but the model has no experts", "take the field out")
        return
    _divides("parallelism.expert", layout.expert, "number of experts", experts.num_experts)
    if layout.expert_tensor not in (1, layout.tensor):
        good = "1" if layout.tensor == 1 else f"1 or {layout.tensor}"
        raise UserError("parallelism.expert_tensor", f"{layout.expert_tensor} is neither 1 nor tensor", f"use {good}")
    _divides("parallelism.expert_tensor", layout.expert_tensor, "expert width", experts.ffn_size)
    if experts.shared_ffn_size is not None:
        _divides("parallelism.tensor", layout.tensor, "shared_expert_intermediate_size", experts.shared_ffn_size)
    ranks = layout.tensor * layout.data
    if ranks % (layout.expert * layout.expert_tensor):
        raise UserError(
            "parallelism.expert",
            f"expert {layout.expert} x expert_tensor {layout.expert_tensor} does not divide the {ranks} ranks of a "
            f"pipeline stage (tensor {layout.tensor} x data {layout.data})",
            "shrink it, or use more ranks",
        )
    if layout.tensor > 1 and not run.parallelism.sequence:
        raise UserError(
            "parallelism.sequence",
            f"false, but experts at tensor {layout.tensor} need sequence parallel",
            "set parallelism.sequence=true",
        )


def _divides(field: str, value: int, name: str, total: int) -> None:
    if total % value:
        good = [size for size in range(1, total + 1) if total % size == 0 and size <= 4 * value]
        raise UserError(field, f"{value} does not divide the model's {name} {total}", f"use one of {good}")
