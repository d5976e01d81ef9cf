"""From a model config and layout to megatron-core's GPTModel, and what each of its parameters is.

Imported only after compat.prepare().
"""

import math
import re
from datetime import timedelta
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer import TransformerConfig

from ...config.layout import Coordinates, Layout
from ...config.model import ModelShape, RopeScaling
from ...config.run import RunConfig
from ...storage.checkpoints.tensor_names import Part, padded_vocab_size
from ..ranks import PATIENCE
from .layers import block_spec
from .rotary import RestartingRotary

_OUTSIDE_LAYERS = {
    "embedding.word_embeddings.weight": "embedding",
    "output_layer.weight": "output",
    "decoder.final_layernorm.weight": "final_norm",
}
_IN_LAYERS = {
    "input_layernorm.weight": "input_norm",
    "self_attention.linear_qkv.layer_norm_weight": "input_norm",  # Transformer Engine's, in one with the matrix
    "pre_mlp_layernorm.weight": "post_attention_norm",
    "mlp.linear_fc1.layer_norm_weight": "post_attention_norm",
    "self_attention.linear_qkv.weight": "qkv",
    "self_attention.linear_qkv.bias": "qkv_bias",
    "self_attention.linear_proj.weight": "attention_output",
    "self_attention.q_layernorm.weight": "q_norm",
    "self_attention.k_layernorm.weight": "k_norm",
    "mlp.linear_fc1.weight": "gate_up",
    "mlp.linear_fc2.weight": "down",
    "mlp.router.weight": "router",
    "mlp.router.expert_bias": "expert_bias",
    "mlp.shared_experts.linear_fc1.weight": "shared_gate_up",
    "mlp.shared_experts.linear_fc2.weight": "shared_down",
    "mlp.shared_experts.gate_weight": "shared_gate",
}
_EXPERTS_IN_LAYERS = {"mlp.experts.gate_up": "experts_gate_up", "mlp.experts.down": "experts_down"}
_LAYER = re.compile(r"decoder\.layers\.(\d+)\.(.+)")


def transformer_config(run: RunConfig, model: ModelShape, layout: Layout) -> TransformerConfig:
    """megatron-core's config of this model in this layout."""
    bf16 = run.train.precision == "bf16"
    dtype = torch.bfloat16 if bf16 else torch.float32
    choices: dict[str, dict[str, Any]] = {
        "none": {},
        "attention": {"recompute_granularity": "selective", "recompute_modules": ["core_attn"]},
        "full": {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1},
    }
    return TransformerConfig(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        num_attention_heads=model.num_heads,
        num_query_groups=model.num_kv_heads,
        kv_channels=model.head_dim,
        ffn_hidden_size=model.ffn_size,
        layernorm_epsilon=model.norm_eps,
        normalization="RMSNorm",
        qk_layernorm=model.qk_norm,
        add_qkv_bias=model.qkv_bias,
        add_bias_linear=False,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        tensor_model_parallel_size=layout.tensor,
        pipeline_model_parallel_size=layout.pipeline,
        context_parallel_size=layout.context,
        **_stages(model, layout),
        sequence_parallel=run.parallelism.sequence and layout.tensor > 1,
        pipeline_dtype=dtype,
        params_dtype=dtype,
        bf16=bf16,
        # Loss and gradients are sums over tokens, divided once by the global batch's tokens: the true token mean.
        calculate_per_token_loss=True,
        # Weights are always read from a TensorSource. The constructors' initialisation still has to run, since it also
        # marks which parameters are tensor parallel shards; it just draws nothing.
        init_method=_leave,
        output_layer_init_method=_leave,
        embedding_init_method=_leave,
        use_cpu_initialization=not torch.cuda.is_available(),
        gradient_accumulation_fusion=False,
        masked_softmax_fusion=False,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        # Stage-to-stage messages have one shape, known from the config.
        variable_seq_lengths=False,
        deterministic_mode=run.train.deterministic,
        **choices[run.train.recompute],
        **_expert_config(run, model, layout),
    )


def _stages(model: ModelShape, layout: Layout) -> dict[str, Any]:
    """Which layers each chunk has, where megatron-core would not find the same by itself."""
    if not layout.chunk_layers and layout.virtual_pipeline == 1:
        return {}
    chunks = [
        ["decoder"] * len(layout.layers_of(stage, model.num_layers, chunk))
        for chunk in range(layout.virtual_pipeline)
        for stage in range(layout.pipeline)
    ]
    chunks[0].insert(0, "embedding")
    chunks[-1].append("loss")
    stages: dict[str, Any] = {"pipeline_model_parallel_layout": chunks}
    if layout.virtual_pipeline > 1:
        stages["virtual_pipeline_model_parallel_size"] = layout.virtual_pipeline
        # Between two stages a batch of messages would pair the activations of one with the gradients of the other.
        stages |= {"overlap_p2p_comm": True, "batch_p2p_comm": False}
    return stages


def _expert_config(run: RunConfig, model: ModelShape, layout: Layout) -> dict[str, Any]:
    experts, router = model.experts, run.train.router
    if experts is None:
        return {}
    return {
        "num_moe_experts": experts.num_experts,
        "moe_router_topk": experts.num_active,
        "moe_ffn_hidden_size": experts.ffn_size,
        "moe_shared_expert_intermediate_size": experts.shared_ffn_size,
        "moe_shared_expert_gate": experts.shared_ffn_size is not None and experts.shared_gate,
        # Softmax over all experts and then the choice (shares sum to less than 1), or over the chosen ones.
        "moe_router_pre_softmax": not experts.normalized,
        "moe_router_score_function": "sigmoid" if experts.biased else "softmax",
        "moe_router_topk_scaling_factor": experts.scale if experts.biased else None,
        "moe_router_dtype": "fp32",
        "moe_router_load_balancing_type": "aux_loss",
        "moe_aux_loss_coeff": experts.aux_loss_coef if router.aux_loss_coef is None else router.aux_loss_coef,
        "moe_z_loss_coeff": router.z_loss_coef,
        "moe_token_dispatcher_type": "alltoall",
        "moe_grouped_gemm": False,
        "moe_permute_fusion": False,
        "expert_model_parallel_size": layout.expert,
        "expert_tensor_parallel_size": layout.expert_tensor,
    }


def _leave(weight: torch.Tensor) -> torch.Tensor:
    return weight


def build_model(
    config: TransformerConfig,
    model: ModelShape,
    layout: Layout,
    place: Coordinates,
    chunk: int,
    *,
    reset_positions: bool,
    transformer_engine: bool,
) -> GPTModel:
    """One chunk of this rank's pipeline stage, with embedding and output layer where they belong.

    With `reset_positions` its rotary_pos_emb is a RestartingRotary.
    """
    sparse = [model.has_experts(number) for number in layout.layers_of(place.pipeline, model.num_layers, chunk)]
    gpt = GPTModel(
        config,
        block_spec(config, sparse, transformer_engine=transformer_engine),
        vocab_size=padded_vocab_size(model, layout.tensor),
        max_sequence_length=model.max_positions,
        pre_process=place.pipeline == 0 and chunk == 0,
        post_process=place.pipeline == layout.pipeline - 1 and chunk == layout.virtual_pipeline - 1,
        position_embedding_type="rope",
        rotary_percent=model.rotary_share,
        rotary_base=model.rope_theta,
        share_embeddings_and_output_weights=model.tied,
        vp_stage=chunk if layout.virtual_pipeline > 1 else None,
    )
    if reset_positions:
        gpt.rotary_pos_emb = RestartingRotary(
            model.head_dim,
            rotary_percent=model.rotary_share,
            rotary_base=model.rope_theta,
            use_cpu_initialization=config.use_cpu_initialization,
        )
    if model.rope_scaling is not None:
        # megatron-core has Llama 3's constants but for the factor; here they are the config's.
        gpt.rotary_pos_emb.inv_freq = stretched_frequencies(gpt.rotary_pos_emb.inv_freq, model.rope_scaling)
    return gpt


def stretched_frequencies(frequencies: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    """Llama 3's rotary frequencies [head_dim / 2] from the plain ones, as in its reference implementation.

    Waves longer than original_max_positions / low_freq_factor are stretched by `factor`, those shorter than
    original_max_positions / high_freq_factor are kept, those between are blended linearly.
    """
    turns = scaling.original_max_positions * frequencies / (2 * math.pi)
    blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return torch.lerp(frequencies / scaling.factor, frequencies, blend.clamp(0, 1))


def initialize_groups(layout: Layout) -> None:
    """Make megatron-core's process groups for the layout."""
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=layout.tensor,
        pipeline_model_parallel_size=layout.pipeline,
        context_parallel_size=layout.context,
        virtual_pipeline_model_parallel_size=layout.virtual_pipeline if layout.virtual_pipeline > 1 else None,
        expert_model_parallel_size=layout.expert,
        expert_tensor_parallel_size=layout.expert_tensor,
        distributed_timeout_minutes=PATIENCE // timedelta(minutes=1),
    )


def part_of(name: str, chunk: int, layout: Layout, place: Coordinates, model: ModelShape) -> Part:
    """What the parameter `name` of a chunk is, with its layer counted over the whole model. KeyError if unknown."""
    kind, layer = _OUTSIDE_LAYERS.get(name), None
    if kind is None:
        match = _LAYER.fullmatch(name)
        if match is None:
            raise KeyError(name)
        layer = int(match.group(1)) + layout.layers_of(place.pipeline, model.num_layers, chunk).start
        if match.group(2) in _EXPERTS_IN_LAYERS and model.experts is not None:
            return Part(
                kind=_EXPERTS_IN_LAYERS[match.group(2)],
                layer=layer,
                tensor_rank=place.expert_tensor,
                tensor_size=layout.expert_tensor,
                experts=layout.experts_of(place, model.experts.num_experts),
            )
        kind = _IN_LAYERS[match.group(2)]
    return Part(kind=kind, layer=layer, tensor_rank=place.tensor, tensor_size=layout.tensor)
