"""A Hugging Face config.json made from a shape: the inverse of reading one."""

from typing import Any

from .model import FAMILIES, ExpertShape, ModelShape


def model_config(model: ModelShape) -> dict[str, Any]:
    """A Hugging Face config.json of a shape: read_model gives the shape again."""
    config: dict[str, Any] = {
        "model_type": model.family,
        "architectures": [FAMILIES[model.family]],
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.ffn_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_kv_heads,
        "head_dim": model.head_dim,
        "max_position_embeddings": model.max_positions,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_theta,
        "initializer_range": model.init_std,
        "tie_word_embeddings": model.tied,
        "hidden_act": "silu",
        "attention_bias": False,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": None,
    }
    if model.rope_scaling is not None:
        scaling = model.rope_scaling
        config["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_positions,
        }
    return config | _expert_config(model)


def _expert_config(model: ModelShape) -> dict[str, Any]:
    experts = model.experts
    if experts is None:
        return {}
    config: dict[str, Any] = {
        "num_experts_per_tok": experts.num_active,
        "router_aux_loss_coef": experts.aux_loss_coef,
    }
    if model.family == "mixtral":
        return config | {"num_local_experts": experts.num_experts, "sliding_window": None}
    if model.family == "glm4_moe":
        return config | _glm_config(model, experts)
    if experts.shared_ffn_size is not None:
        config["shared_expert_intermediate_size"] = experts.shared_ffn_size
    return config | {
        "num_experts": experts.num_experts,
        "moe_intermediate_size": experts.ffn_size,
        "norm_topk_prob": experts.normalized,
        "mlp_only_layers": [number for number in range(model.num_layers) if number not in experts.layers],
        "decoder_sparse_step": 1,
    }


def _glm_config(model: ModelShape, experts: ExpertShape) -> dict[str, Any]:
    assert experts.shared_ffn_size is not None
    return {
        "n_routed_experts": experts.num_experts,
        "moe_intermediate_size": experts.ffn_size,
        "n_shared_experts": experts.shared_ffn_size // experts.ffn_size,
        "first_k_dense_replace": experts.layers[0],
        "routed_scaling_factor": experts.scale,
        "norm_topk_prob": True,
        "n_group": 1,
        "topk_group": 1,
        "use_qk_norm": model.qk_norm,
        "attention_bias": model.qkv_bias,
        "partial_rotary_factor": model.rotary_share,
        "num_nextn_predict_layers": 0,
    }
