"""The rules that a layout must keep, each refused in one line with the nearest values that keep it. No torch."""

from .engine_rules import engine_rule
from .errors import UserError
from .known_wrong import known_wrong_rule
from .layout import Layout, nearly_even
from .model import ModelShape
from .nearest import nearest
from .parallelism import ParallelismConfig
from .run import RunConfig


def layout_of(run: RunConfig, model: ModelShape) -> Layout:
    """The layout that the run file asks for, after checking every rule.

    Raises UserError naming the field that breaks a rule, its value, and the nearest layouts that keep all rules.
    """
    try:
        return _checked(run, model)
    except UserError as error:
        good = nearest(run, model, lambda other: _is_valid(other, model))
        raise UserError(error.where, error.problem, _with_layouts(error.remedy, good)) from None


def _is_valid(run: RunConfig, model: ModelShape) -> bool:
    try:
        _checked(run, model)
    except UserError:
        return False
    return True


def _with_layouts(remedy: str, good: list[str]) -> str:
    return f"{remedy}; nearest that work: {' | '.join(good)}" if good else remedy


def _checked(run: RunConfig, model: ModelShape) -> Layout:
    """The layout, or UserError for the first rule that it breaks."""
    parallel, train, world = run.parallelism, run.train, run.cluster.world_size
    model_ranks = parallel.tensor * parallel.context * parallel.pipeline
    engine_rule(run, model)
    _heads_rule(parallel.tensor, model)
    _stages_rule(parallel, model)
    if world % model_ranks:
        raise UserError(
            "parallelism",
            f"tensor {parallel.tensor} x {f'context {parallel.context} x ' if parallel.context > 1 else ''}pipeline "
            f"{parallel.pipeline} does not divide the world size {world} (cluster.nodes {run.cluster.nodes} x "
            f"cluster.ranks_per_node {run.cluster.ranks_per_node})",
            f"make the world size a multiple of {model_ranks}, or shrink "
            f"{'tensor, context' if parallel.context > 1 else 'tensor'} or pipeline",
        )
    layout = Layout(
        tensor=parallel.tensor,
        pipeline=parallel.pipeline,
        data=world // model_ranks,
        context=parallel.context,
        expert=parallel.expert,
        expert_tensor=parallel.expert_tensor,
        virtual_pipeline=parallel.virtual_pipeline,
        chunk_layers=tuple(parallel.stage_layers or ()),
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
    _interleaving_rule(run, layout)
    _length_rule(run, layout)
    if run.data.sequence_length > model.max_positions:
        raise UserError(
            "data.sequence_length",
            f"{run.data.sequence_length} is more than the model's max_position_embeddings {model.max_positions}",
            "shorten the sequences or raise max_position_embeddings",
        )
    known_wrong_rule(run, layout)
    return layout


def _stages_rule(parallel: ParallelismConfig, model: ModelShape) -> None:
    """Every stage gets whole layers: the same number of them, or those that are given."""
    num_chunks, layers = parallel.pipeline * parallel.virtual_pipeline, model.num_layers
    given = parallel.stage_layers
    if parallel.virtual_pipeline > 1 and parallel.pipeline == 1:
        raise UserError(
            "parallelism.virtual_pipeline", f"{parallel.virtual_pipeline} at pipeline 1", "take it out, or use stages"
        )
    if given is None and layers % num_chunks:
        good = [size for size in range(1, layers + 1) if layers % (size * parallel.virtual_pipeline) == 0]
        times = "" if parallel.virtual_pipeline == 1 else f" x virtual_pipeline {parallel.virtual_pipeline}"
        uneven = f"stage_layers={nearly_even(layers, num_chunks)}" if num_chunks <= layers else ""
        raise UserError(
            "parallelism.pipeline",
            f"{parallel.pipeline}{times} does not divide the model's num_hidden_layers {layers}",
            " or ".join(part for part in (f"use one of {good}" if good else "", uneven) if part) or "shrink both",
        )
    if given is None:
        return
    if len(given) != num_chunks:
        raise UserError(
            "parallelism.stage_layers",
            f"{given} has {len(given)} numbers, and there are {num_chunks} chunks (pipeline {parallel.pipeline} x "
            f"virtual_pipeline {parallel.virtual_pipeline})",
            f"give {nearly_even(layers, num_chunks)}"
            if num_chunks <= layers
            else "shrink pipeline or virtual_pipeline",
        )
    if sum(given) != layers:
        raise UserError(
            "parallelism.stage_layers",
            f"{given} is {sum(given)} layers, and the model's num_hidden_layers is {layers}",
            f"give {nearly_even(layers, num_chunks)}",
        )


def _interleaving_rule(run: RunConfig, layout: Layout) -> None:
    if layout.virtual_pipeline == 1:
        return
    per_pass = run.train.micro_batch_size * layout.data
    count = run.train.global_batch_size // per_pass
    if count % layout.pipeline:
        step = per_pass * layout.pipeline
        below = run.train.global_batch_size // step * step
        raise UserError(
            "train.global_batch_size",
            f"{run.train.global_batch_size} is {count} micro batches, no multiple of pipeline {layout.pipeline}, which "
            "virtual_pipeline needs",
            f"use {f'{below} or ' if below else ''}{below + step}",
        )


def _length_rule(run: RunConfig, layout: Layout) -> None:
    """Each rank gets whole chunks of positions: two under context parallel, and shares of them for tensor ranks."""
    length, unit = run.data.sequence_length, layout.length_unit(sequence=run.parallelism.sequence)
    if length % unit == 0:
        return
    in_shares = run.parallelism.sequence and layout.tensor > 1
    context = f"parallelism.context {layout.context}" if layout.context > 1 else ""
    tensor = f"parallelism.tensor {layout.tensor}" if in_shares else ""
    below = length // unit * unit
    raise UserError(
        "data.sequence_length",
        f"{length} is not a multiple of {unit}, as {' and '.join(part for part in (context, tensor) if part)} need"
        f"{'' if context and tensor else 's'}",
        f"use {f'{below} or ' if below else ''}{below + unit}"
        f"{', or set parallelism.sequence=false' if in_shares and not context else ''}",
    )


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
            ("train.router.bias_update_rate", router.bias_update_rate, None),
        ):
            if value != neutral:
                raise UserError(field, f"{value}, but the model has no experts", "take the field out")
        return
    if router.bias_update_rate is not None and not experts.biased:
        problem = f"{router.bias_update_rate}, but {model.family} has no bias that chooses experts"
        raise UserError("train.router.bias_update_rate", problem, "use aux_loss_coef")
    _divides("parallelism.expert", layout.expert, "number of experts", experts.num_experts)
    if layout.expert_tensor not in (1, layout.tensor):
        good = "1" if layout.tensor == 1 else f"1 or {layout.tensor}"
        raise UserError("parallelism.expert_tensor", f"{layout.expert_tensor} is neither 1 nor tensor", f"use {good}")
    _divides("parallelism.expert_tensor", layout.expert_tensor, "expert width", experts.ffn_size)
    if experts.shared_ffn_size is not None:
        _divides("parallelism.tensor", layout.tensor, "width of shared experts", experts.shared_ffn_size)
    ranks = layout.ranks_per_stage
    if ranks % (layout.expert * layout.expert_tensor):
        raise UserError(
            "parallelism.expert",
            f"expert {layout.expert} x expert_tensor {layout.expert_tensor} does not divide the {ranks} ranks of a "
            f"pipeline stage (tensor {layout.tensor}{f' x context {layout.context}' if layout.context > 1 else ''} x "
            f"data {layout.data})",
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
