"""Layouts that engines must compute right, as overrides of one run file, each with the model that makes it hard."""

from dataclasses import dataclass
from typing import Any

from ..integration.real_runs import (
    GLM4_MOE,
    GLM4_MOE_HEAD_NORMS,
    MIXTRAL,
    QWEN2_MOE,
    QWEN3_MOE,
    QWEN3_MOE_UNSCALED,
    QWEN_EXPERTS,
    Model,
)

LLAMA, LLAMA_TIED = Model("llama", tied=False), Model("llama", tied=True)
FIVE_LAYERS = Model("llama", tied=True, more=(("num_hidden_layers", 5),))
QWEN2, QWEN3 = Model("qwen2", tied=True), Model("qwen3", tied=False)
STRETCHED = Model(
    "llama",
    tied=False,
    more=(
        (
            "rope_scaling",
            {
                "rope_type": "llama3",
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        ),
    ),
)
MANY_HEADS = Model("llama", tied=False, more=(("num_key_value_heads", 8),))
DENSE_FIRST = Model("qwen3_moe", False, (*QWEN_EXPERTS, ("norm_topk_prob", True), ("mlp_only_layers", [0])))
ROUTER = ["train.router.z_loss_coef=1.0e-3", "train.router.aux_loss_coef=0.05"]


@dataclass(frozen=True)
class Case:
    """A model and what its run file says of layout and training."""

    name: str
    model: Model
    overrides: tuple[str, ...]


def case(name: str, model: Model, ranks: int, /, *more: str, **axes: Any) -> Case:
    """`axes` are fields of `parallelism`."""
    fields = [f"parallelism.{axis}={str(value).lower()}" for axis, value in axes.items()]
    router = ROUTER if model.family in ("mixtral", "qwen2_moe", "qwen3_moe", "glm4_moe") else []
    return Case(name, model, (f"cluster.ranks_per_node={ranks}", *fields, *router, *more))


PLAIN = "data.document_mask=false"
MUON = "train.optimizer.name=muon"
RESTART = "data.reset_positions=true"
MEGATRON = [
    case("one", LLAMA, 1, zero=0),
    case("one-moe", QWEN2_MOE, 1, zero=0),
    case("tp2", LLAMA, 2, tensor=2, zero=0),
    case("tp2-sp", QWEN3, 2, tensor=2, sequence=True),
    case("tp2-sp-bias", QWEN2, 2, tensor=2, sequence=True),
    case("tp2-kv-heads-equal", MANY_HEADS, 2, PLAIN, tensor=2),
    case("tp4-few-kv-heads", LLAMA_TIED, 4, tensor=4),
    case("pp2", LLAMA, 2, tensor=1, pipeline=2),
    case("pp2-tied", LLAMA_TIED, 2, RESTART, pipeline=2),
    case("pp2-uneven", QWEN3, 2, pipeline=2, stage_layers=[3, 1]),
    case("pp2-vpp2", LLAMA, 2, pipeline=2, virtual_pipeline=2),
    case("pp2-vpp2-uneven-tied", FIVE_LAYERS, 2, pipeline=2, virtual_pipeline=2, stage_layers=[2, 1, 1, 1]),
    case("dp2-zero0", LLAMA, 2, zero=0),
    case("dp2-zero1", QWEN2, 2, zero=1),
    case("cp2", LLAMA, 2, context=2),
    case("cp2-plain", STRETCHED, 2, PLAIN, context=2),
    case("cp2-restart", QWEN3, 2, RESTART, context=2, zero=0),
    case("tp2-sp-cp2", LLAMA_TIED, 4, tensor=2, context=2, sequence=True),
    case("cp2-pp2", QWEN2, 4, context=2, pipeline=2),
    case("tp2-pp2-dp2", LLAMA, 8, tensor=2, pipeline=2, sequence=True),
    case("tp2-recompute-full", LLAMA, 2, "train.recompute=full", tensor=2, sequence=True),
    case("cp2-recompute-attention", LLAMA, 2, "train.recompute=attention", context=2),
    case("no-clip", LLAMA, 2, "train.optimizer.clip_norm=0", tensor=2),
    case("muon-tp2-pp2", QWEN2, 4, MUON, tensor=2, pipeline=2, sequence=True, zero=0),
    case("muon-tp4-few-kv-heads", LLAMA_TIED, 4, MUON, tensor=4, zero=0),
    case("muon-dp2-cp2", QWEN3, 4, MUON, context=2, zero=0),
    case("muon-etp2-ep2", QWEN2_MOE, 4, MUON, tensor=2, sequence=True, expert_tensor=2, expert=2, zero=0),
    case("muon-ep2-whole", QWEN3_MOE, 4, MUON, tensor=2, sequence=True, expert=2, zero=0),
    case("ep2", QWEN2_MOE, 2, expert=2),
    case("ep2-plain", MIXTRAL, 2, PLAIN, expert=2),
    case("ep2-copies", QWEN3_MOE, 4, expert=2, zero=1),
    case("tp2-sp-ep2", QWEN3_MOE_UNSCALED, 2, tensor=2, sequence=True, expert=2),
    case("tp2-sp-experts-whole", MIXTRAL, 2, tensor=2, sequence=True),
    case("etp2", QWEN2_MOE, 2, tensor=2, sequence=True, expert_tensor=2),
    case("etp2-ep2", QWEN3_MOE, 4, tensor=2, sequence=True, expert_tensor=2, expert=2),
    case("pp2-ep2", MIXTRAL, 4, pipeline=2, expert=2),
    case("pp2-vpp2-ep2", QWEN2_MOE, 4, pipeline=2, virtual_pipeline=2, expert=2),
    case("cp2-ep2", QWEN3_MOE, 2, context=2, expert=2),
    case("tp2-sp-cp2-ep4", QWEN2_MOE, 4, tensor=2, sequence=True, context=2, expert=4),
    case("dense-first-pp2", DENSE_FIRST, 4, pipeline=2, expert=2),
    case("bias-one", GLM4_MOE, 1, zero=0),
    case("bias-ep2-dp2", GLM4_MOE, 2, "train.router.bias_update_rate=0.01", expert=2),
    case("bias-tp2-sp-etp2", GLM4_MOE_HEAD_NORMS, 2, tensor=2, sequence=True, expert_tensor=2),
    case("bias-pp2-cp2-ep2", GLM4_MOE, 4, RESTART, pipeline=2, context=2, expert=2),
    case("bias-muon-tp2", GLM4_MOE, 2, MUON, tensor=2, sequence=True, zero=0),
    case("bias-recompute-ep2", GLM4_MOE_HEAD_NORMS, 4, "train.recompute=full", pipeline=2, expert=2),
    case("dp2-overlap", QWEN2, 2, zero=1, overlap=True),
    case("dp2-zero0-overlap", LLAMA, 2, zero=0, overlap=True),
    case("pp2-vpp2-dp2-overlap", LLAMA_TIED, 4, pipeline=2, virtual_pipeline=2, overlap=True),
    case("tp2-pp2-dp2-overlap", LLAMA, 8, tensor=2, pipeline=2, sequence=True, overlap=True),
    case("ep2-copies-overlap", QWEN3_MOE, 4, expert=2, overlap=True),
    case("tp2-pp2-ep2-recompute", QWEN3_MOE, 8, "train.recompute=full", tensor=2, pipeline=2, sequence=True, expert=2),
]
DEEPSPEED = [
    case("zero1", LLAMA, 2, engine="deepspeed", zero=1),
    case("zero2", QWEN2, 2, engine="deepspeed", zero=2),
    case("zero3", LLAMA, 2, engine="deepspeed", zero=3),
    case("zero3-tied-restart", LLAMA_TIED, 2, RESTART, engine="deepspeed", zero=3),
    case("zero1-one-rank", QWEN3, 1, engine="deepspeed", zero=1),
    case("zero2-recompute", LLAMA, 2, "train.recompute=full", engine="deepspeed", zero=2),
    case("zero3-recompute-moe", QWEN3_MOE, 2, "train.recompute=full", engine="deepspeed", zero=3),
    case("zero1-moe", MIXTRAL, 2, engine="deepspeed", zero=1),
    case("zero2-moe", QWEN2_MOE, 2, PLAIN, engine="deepspeed", zero=2),
    case("zero3-moe", QWEN2_MOE, 2, engine="deepspeed", zero=3),
    case("zero1-cp2", LLAMA, 2, engine="deepspeed", zero=1, context=2),
    case("zero3-cp2-plain", STRETCHED, 2, PLAIN, engine="deepspeed", zero=3, context=2),
    case("zero2-cp2-dp2", QWEN3, 4, engine="deepspeed", zero=2, context=2),
    case("zero3-cp2-moe", QWEN3_MOE, 2, RESTART, engine="deepspeed", zero=3, context=2),
    case("zero1-cp4-few-kv-heads", LLAMA, 4, engine="deepspeed", zero=1, context=4),
    case("zero2-offload", LLAMA, 2, engine="deepspeed", zero=2, offload="cpu"),
    case("zero3-offload", QWEN2, 2, engine="deepspeed", zero=3, offload="cpu"),
    case("tp2-zero1", LLAMA, 2, engine="deepspeed", zero=1, tensor=2),
    case("tp2-zero2-bias", QWEN2, 2, engine="deepspeed", zero=2, tensor=2),
    case("tp2-zero1-dp2-tied", LLAMA_TIED, 4, RESTART, engine="deepspeed", zero=1, tensor=2),
    case("tp2-zero3", QWEN3, 2, engine="deepspeed", zero=3, tensor=2),
    case("ep2-zero1", MIXTRAL, 2, engine="deepspeed", zero=1, expert=2),
    case("ep2-zero2-shared", QWEN2_MOE, 2, engine="deepspeed", zero=2, expert=2),
    case("ep2-zero1-copies", QWEN3_MOE, 4, engine="deepspeed", zero=1, expert=2),
    case("bias-zero1", GLM4_MOE, 2, engine="deepspeed", zero=1),
    case("bias-zero3-cp2", GLM4_MOE_HEAD_NORMS, 2, RESTART, engine="deepspeed", zero=3, context=2),
    case("bias-zero2-recompute", GLM4_MOE, 2, "train.recompute=full", engine="deepspeed", zero=2),
    case("zero2-overlap", LLAMA, 2, engine="deepspeed", zero=2, overlap=True),
    case("ep2-zero3", QWEN3_MOE_UNSCALED, 2, engine="deepspeed", zero=3, expert=2),
]
TRANSFORMER_ENGINE, UNMARKED = "Transformer Engine", "Transformer Engine, norm not marked"
WITH_TRANSFORMER_ENGINE = {
    "tp2-sp",
    "tp2-sp-bias",
    "pp2-tied",
    "etp2",
    "tp2-kv-heads-equal",
    "dense-first-pp2",
    "cp2-ep2",
}
"""Megatron's cases that are computed with its layers too (see transformer_engine.py)."""
IN_TEST = {
    "tp2-sp",
    "tp4-few-kv-heads",
    "pp2-vpp2-uneven-tied",
    "dp2-overlap",
    "cp2-restart",
    "tp2-sp-cp2",
    "ep2-copies",
    "etp2-ep2",
    "muon-etp2-ep2",
    "pp2-vpp2-ep2",
    "dense-first-pp2",
    "tp2-pp2-ep2-recompute",
    "bias-pp2-cp2-ep2",
    "bias-zero3-cp2",
    "zero3-tied-restart",
    "zero3-cp2-moe",
    "zero2-offload",
    "zero3-recompute-moe",
    "tp2-zero1-dp2-tied",
    "ep2-zero2-shared",
}
"""Cases of `make test`; the others are in `make test-matrix`."""
