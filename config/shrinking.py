"""A run made small enough to be computed on a few CPU ranks, with everything kept that a layout can get wrong.

Arithmetic only, no torch.
"""

import math
from dataclasses import replace

from .cluster import ClusterConfig
from .layout import Layout
from .layout_rules import layout_of
from .model import ExpertShape, ModelShape
from .run import RunConfig

VOCABULARY = 131
"""Prime: no tensor parallel size divides it, so that there is padding."""
_HEAD_DIM = 16
_FFN, _EXPERT_FFN, _SHARED_FFN = 48, 32, 40
_MOST_EXPERTS, _MOST_ACTIVE = 4, 2
_TOKENS = 24
"""Fewest tokens of a sample."""
_MOST_RANKS = 16


def shrink(run: RunConfig, model: ModelShape) -> tuple[RunConfig, ModelShape]:
    """The same run with every axis at most 2 and every size small; float32, on this machine.

    Kept are: fewer key-value heads than tensor ranks, tied embeddings, stages that are not alike, which layers are
    dense, shared experts, copies of experts, document masks, and all that the run file says of the optimizer, the
    router, recompute and ZeRO. Raises UserError if the run's own layout breaks a rule.
    """
    layout = layout_of(run, model)
    small = _layout(layout, model)
    shape = _model(model, layout, small)
    micro = min(run.train.micro_batch_size, 2)
    parallelism = run.parallelism.model_copy(
        update={
            "tensor": small.tensor,
            "context": small.context,
            "pipeline": small.pipeline,
            "virtual_pipeline": small.virtual_pipeline,
            "stage_layers": list(small.chunk_layers) or None,
            "expert": small.expert,
            "expert_tensor": small.expert_tensor,
            "offload": "cpu" if run.parallelism.offload == "nvme" else run.parallelism.offload,
            "offload_folder": None,
            "transformer_engine": "never",  # it has no CPU
        }
    )
    count = run.train.global_batch_size // (run.train.micro_batch_size * layout.data)
    count = 2 * small.pipeline if small.pipeline > 1 else min(count, 3)
    unit = small.length_unit(sequence=run.parallelism.sequence)
    train = {
        "micro_batch_size": micro,
        "global_batch_size": micro * count * small.data,
        "precision": "fp32",
        "steps": 2,
        "lora": None,  # the layout is that of the weights
    }
    small_run = run.model_copy(
        update={
            "parallelism": parallelism,
            "data": run.data.model_copy(update={"sequence_length": math.ceil(_TOKENS / unit) * unit}),
            "train": run.train.model_copy(update=train),
            "checkpoint": run.checkpoint.model_copy(update={"init_from": None, "resume_from": None}),
            "cluster": ClusterConfig(ranks_per_node=small.world_size),
        }
    )
    layout_of(small_run, shape)  # a rule broken here is our mistake, not the user's
    return small_run, shape


def _layout(layout: Layout, model: ModelShape) -> Layout:
    """Axes of 1 stay 1, all others become 2; more data ranks where experts have copies."""
    tensor, context, pipeline, virtual = (
        min(size, 2) for size in (layout.tensor, layout.context, layout.pipeline, layout.virtual_pipeline)
    )
    small = Layout(
        tensor=tensor,
        context=context,
        pipeline=pipeline,
        data=min(layout.data, 2),
        expert=min(layout.expert, 2),
        expert_tensor=min(layout.expert_tensor, 2),
        virtual_pipeline=virtual,
        chunk_layers=_chunk_layers(layout, pipeline * virtual),
    )
    wider = replace(small, data=2 * small.data)
    needs_copies = model.experts is not None and layout.expert_data > 1 and small.expert_data == 1
    return wider if needs_copies and wider.world_size <= _MOST_RANKS else small


def _chunk_layers(layout: Layout, num_chunks: int) -> tuple[int, ...]:
    """Stages that are not alike stay so: two layers where there were most, one elsewhere."""
    given = layout.chunk_layers
    if len(set(given)) < 2:
        return ()
    first = given[0] >= given[-1]
    return (2, *(1,) * (num_chunks - 1)) if first else (*(1,) * (num_chunks - 1), 2)


def _model(model: ModelShape, layout: Layout, small: Layout) -> ModelShape:
    kv_heads = 1 if model.num_kv_heads < layout.tensor or model.num_kv_heads == 1 else 2
    heads = kv_heads * (1 if model.num_heads == model.num_kv_heads else 2)
    head_dim = min(model.head_dim, _HEAD_DIM)
    if head_dim * model.rotary_share % 2:
        head_dim = model.head_dim
    square = model.hidden_size == model.num_heads * model.head_dim
    num_layers = sum(small.chunk_layers) or _layers_per_chunk(model, small) * small.pipeline * small.virtual_pipeline
    return replace(
        model,
        num_layers=num_layers,
        hidden_size=heads * head_dim + (0 if square else _HEAD_DIM),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        ffn_size=_EXPERT_FFN if model.family == "mixtral" else _FFN,
        vocab_size=VOCABULARY,
        experts=_experts(model, small, num_layers),
    )


def _layers_per_chunk(model: ModelShape, small: Layout) -> int:
    """Two where some layers are dense and some not, or where all layers are in one chunk."""
    mixed = model.experts is not None and len(model.experts.layers) < model.num_layers
    return 2 if mixed or small.pipeline * small.virtual_pipeline == 1 else 1


def _experts(model: ModelShape, small: Layout, num_layers: int) -> ExpertShape | None:
    experts = model.experts
    if experts is None:
        return None
    count = max(min(experts.num_experts, _MOST_EXPERTS), small.expert)
    dense_first = not model.has_experts(0)
    layers = tuple(range(1 if dense_first else 0, num_layers))
    if len(experts.layers) < model.num_layers and not dense_first:
        layers = tuple(number for number in range(num_layers) if number != num_layers - 1)
    return replace(
        experts,
        num_experts=count,
        num_active=min(experts.num_active, _MOST_ACTIVE, count),
        ffn_size=_EXPERT_FFN,
        shared_ffn_size=_shared_ffn_size(experts),
        layers=layers,
    )


def _shared_ffn_size(experts: ExpertShape) -> int | None:
    """Where the shared expert has no width of its own (GLM-4.5) it is one or two experts wide."""
    if experts.shared_ffn_size is None:
        return None
    if experts.shared_gate:
        return _SHARED_FFN
    return min(experts.shared_ffn_size // experts.ffn_size, 2) * _EXPERT_FFN
