"""What is read of a config.json, and what is refused rather than dropped."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainwright.config.errors import UserError
from trainwright.config.model import FAMILIES, ExpertShape, ModelShape, RopeScaling
from trainwright.config.model_reader import read_model

ROOT = Path(__file__).parents[3]
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}

STRETCH = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def read(folder: Path, **changes: Any) -> ModelShape:
    others = {} if changes.get("num_attention_heads") else {"num_key_value_heads": None}  # as many as heads
    (folder / "config.json").write_text(json.dumps({**LLAMA, **others, **changes}))
    return read_model(folder / "config.json")


def test_the_preset_is_read() -> None:
    shape = read_model(ROOT / "presets" / "tiny-llama")  # the folder does as well
    assert (shape.family, shape.num_layers, shape.num_kv_heads, shape.head_dim) == ("llama", 4, 2, 32)
    assert (shape.tied, shape.qk_norm, shape.qkv_bias) == (False, False, False)


def test_defaults_follow_transformers(tmp_path: Path) -> None:
    llama = read(tmp_path)
    assert (llama.num_kv_heads, llama.head_dim, llama.max_positions, llama.rope_theta) == (4, 16, 2048, 10000.0)
    qwen3 = read(tmp_path, model_type="qwen3")
    assert (qwen3.head_dim, qwen3.qk_norm, qwen3.qkv_bias) == (128, True, False)
    assert read(tmp_path, model_type="qwen2").qkv_bias


@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_a_file_leaves_out_is_what_transformers_takes(tmp_path: Path, model_type: str) -> None:
    from transformers import AutoConfig

    shape = read(tmp_path, model_type=model_type, hidden_size=1024, num_attention_heads=32)
    theirs = AutoConfig.from_pretrained(tmp_path)
    rope = theirs.rope_parameters
    assert (shape.rope_theta, shape.rotary_share) == (rope["rope_theta"], rope.get("partial_rotary_factor", 1.0))
    assert (shape.norm_eps, shape.init_std) == (theirs.rms_norm_eps, theirs.initializer_range)
    assert (shape.max_positions, shape.tied) == (theirs.max_position_embeddings, theirs.tie_word_embeddings)
    assert shape.head_dim == (getattr(theirs, "head_dim", None) or 32)
    assert shape.num_kv_heads == theirs.num_key_value_heads
    if shape.experts is not None:
        assert shape.experts.num_active == theirs.num_experts_per_tok
        assert shape.experts.num_experts == getattr(theirs, "num_experts", None) or theirs.num_local_experts
        assert shape.experts.aux_loss_coef == getattr(theirs, "router_aux_loss_coef", 0.0)


@pytest.mark.parametrize(
    "changes", [{"rope_theta": 5e5}, {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}]
)
def test_rope_theta_of_old_and_new_files(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert read(tmp_path, **changes).rope_theta == 5e5


EXPERTS = {"num_experts": 6, "num_local_experts": 6, "n_routed_experts": 6, "num_experts_per_tok": 2}
EXPERTS["moe_intermediate_size"] = 40


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_stretched_rotary_embedding(tmp_path: Path, key: str) -> None:
    found = read(tmp_path, rope_theta=5e5, **{key: STRETCH}).rope_scaling
    assert found == RopeScaling(factor=8, low_freq_factor=1, high_freq_factor=4, original_max_positions=32)


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_counted_as_transformers_counts(tmp_path: Path, model_type: str, tied: bool) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    glm, qk_norm = model_type == "glm4_moe", tied
    tied = tied and not glm
    more = {"shared_expert_intermediate_size": 56, "mlp_only_layers": [2]} if model_type.endswith("_moe") else {}
    if glm:
        more |= {"n_shared_experts": 2, "use_qk_norm": qk_norm, "attention_bias": not qk_norm}
    # Qwen2 models have no head_dim and go by hidden_size / num_attention_heads: 16.
    shape = read(
        tmp_path,
        model_type=model_type,
        tie_word_embeddings=tied,
        num_key_value_heads=2,
        head_dim=16 if model_type in ("qwen2", "qwen2_moe") else 24,
        **EXPERTS,
        **more,
    )
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    assert shape.num_parameters() == model.num_parameters()


def test_experts_of_each_family(tmp_path: Path) -> None:
    mixtral = read(tmp_path, model_type="mixtral").experts
    assert mixtral == ExpertShape(
        num_experts=8,
        num_active=2,
        ffn_size=128,
        shared_ffn_size=None,
        normalized=True,
        aux_loss_coef=0.001,
        layers=(0, 1, 2, 3),
    )
    qwen3 = read(tmp_path, model_type="qwen3_moe", norm_topk_prob=True, decoder_sparse_step=2).experts
    assert qwen3 is not None
    assert (qwen3.num_experts, qwen3.num_active, qwen3.ffn_size, qwen3.normalized) == (128, 8, 768, True)
    assert qwen3.layers == (1, 3)
    qwen2 = read(tmp_path, model_type="qwen2_moe", mlp_only_layers=[0]).experts
    assert qwen2 is not None
    assert (qwen2.num_experts, qwen2.num_active, qwen2.ffn_size, qwen2.shared_ffn_size) == (60, 4, 1408, 5632)
    assert (qwen2.normalized, qwen2.layers) == (False, (1, 2, 3))
    assert read(tmp_path, model_type="qwen3_moe", mlp_only_layers=[0, 1, 2, 3]).experts is None
    glm = read(tmp_path, model_type="glm4_moe", n_shared_experts=2, routed_scaling_factor=2.5)
    assert glm.rotary_share == 0.5
    assert read(tmp_path, partial_rotary_factor=None).rotary_share == 1
    assert glm.experts == ExpertShape(
        num_experts=128,
        num_active=8,
        ffn_size=1408,
        shared_ffn_size=2816,
        normalized=True,
        aux_loss_coef=0.0,
        layers=(1, 2, 3),
        biased=True,
        scale=2.5,
    )
    assert read(tmp_path).experts is None


def test_a_token_passes_only_its_experts(tmp_path: Path) -> None:
    shape = read(tmp_path, model_type="mixtral", num_local_experts=8, num_experts_per_tok=2)
    assert shape.num_parameters() - shape.num_active_parameters() == 4 * 6 * 3 * 64 * 128
    assert read(tmp_path).num_active_parameters() == read(tmp_path).num_parameters()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt2"}, "model_type: 'gpt2'; use one of llama, qwen2, qwen3, mixtral"),
        ({"model_type": None}, "model_type: None"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu'; only 'silu' is computed here"),
        ({"attention_bias": True}, "attention_bias: True"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_scaling: 'yarn'"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling: 'linear'"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters.factor: None; give a positive number"),
        (
            {"rope_scaling": {**STRETCH, "high_freq_factor": 1.0}},
            "rope_scaling.high_freq_factor: 1.0; it must be above",
        ),
        ({"rope_scaling": "yarn"}, "rope_scaling: 'yarn'; it must hold fields"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: 3; it must divide"),
        ({"hidden_size": 66}, "hidden_size: 66; give head_dim"),
        ({"head_dim": 15}, "head_dim: 15"),
        (
            {"model_type": "qwen2", "head_dim": 32},
            "head_dim: 32; qwen2 has hidden_size / num_attention_heads, here 64/4",
        ),
        ({"num_hidden_layers": 0}, "num_hidden_layers: 0; give a positive whole number"),
        ({"vocab_size": "512"}, "vocab_size: '512'"),
        ({"vocab_size": True}, "vocab_size: True"),
        ({"rms_norm_eps": -1}, "rms_norm_eps: -1"),
        ({"model_type": "mixtral", "num_experts_per_tok": 9}, "num_experts_per_tok: 9; there are 8 experts"),
        (
            {"model_type": "mixtral", "num_experts_per_tok": 1},
            "num_experts_per_tok: 1; its share would always be 1: use 2",
        ),
        ({"model_type": "mixtral", "sliding_window": 4096}, "sliding_window: 4096"),
        ({"model_type": "mixtral", "router_jitter_noise": 0.1}, "router_jitter_noise: 0.1"),
        ({"model_type": "qwen3_moe", "mlp_only_layers": 3}, "mlp_only_layers: 3; give a list of layer numbers"),
        ({"model_type": "qwen3_moe", "router_aux_loss_coef": -1}, "router_aux_loss_coef: -1"),
        ({"model_type": "qwen2_moe", "qkv_bias": False}, "qkv_bias: False; only True is computed here"),
        ({"quantization_config": {"quant_method": "fp8"}}, "; weights are trained unquantized: take it out"),
        ({"model_type": "glm4_moe", "partial_rotary_factor": None}, "partial_rotary_factor: None; give a positive"),
        ({"model_type": "qwen3_moe", "num_experts_per_tok": 1, "norm_topk_prob": True}, "set norm_topk_prob to false"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: 0.5; llama turns whole heads"),
        ({"model_type": "glm4_moe", "partial_rotary_factor": 0.3}, "it must leave an even part of head_dim 16"),
        ({"model_type": "glm4_moe", "partial_rotary_factor": 2}, "partial_rotary_factor: 2"),
        ({"model_type": "glm4_moe", "norm_topk_prob": False}, "norm_topk_prob: False; only True is computed"),
        ({"model_type": "glm4_moe", "tie_word_embeddings": True}, "tie_word_embeddings: True; vLLM serves"),
        ({"model_type": "glm4_moe", "n_group": 8}, "n_group: 8; only 1 is computed"),
        ({"model_type": "glm4_moe", "first_k_dense_replace": 4}, "first_k_dense_replace: 4; no layer is left"),
        ({"model_type": "glm4_moe", "first_k_dense_replace": -1}, "first_k_dense_replace: -1; give a number of layers"),
        ({"model_type": "glm4_moe", "routed_scaling_factor": 0}, "routed_scaling_factor: 0; give a positive number"),
    ],
)
def test_what_no_engine_computes_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, **changes)
    assert words in str(caught.value)
    assert str(tmp_path / "config.json") in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null"])
def test_what_is_no_config_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"give a Hugging Face config\.json"):
        read_model(tmp_path / "config.json")
    with pytest.raises(UserError, match="no such file"):
        read_model(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("preset", "parameters", "active"),
    [
        ("llama-3.2-1b", 1_235_814_400, 1_235_814_400),
        ("llama-3.1-8b", 8_030_261_248, 8_030_261_248),
        ("qwen3-8b", 8_190_735_360, 8_190_735_360),
        ("qwen3-30b-a3b", 30_532_122_624, 3_353_032_704),
        ("mixtral-8x7b", 46_702_792_704, 12_879_925_248),
    ],
)
def test_presets_have_the_published_sizes(preset: str, parameters: int, active: int) -> None:
    shape = read_model(ROOT / "presets" / preset)
    assert (shape.num_parameters(), shape.num_active_parameters()) == (parameters, active)
