"""What is read of a config.json, and what is refused rather than dropped."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainwright.config.errors import UserError
from trainwright.config.model import ModelShape, read_model

ROOT = Path(__file__).parents[3]
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}


def read(folder: Path, **changes: Any) -> ModelShape:
    (folder / "config.json").write_text(json.dumps({**LLAMA, **changes}))
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


@pytest.mark.parametrize(
    "changes", [{"rope_theta": 5e5}, {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}]
)
def test_rope_theta_of_old_and_new_files(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert read(tmp_path, **changes).rope_theta == 5e5


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_counted_as_transformers_counts(tmp_path: Path, model_type: str, tied: bool) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = read(tmp_path, model_type=model_type, tie_word_embeddings=tied, num_key_value_heads=2, head_dim=24)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    assert shape.num_parameters() == model.num_parameters()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt2"}, "model_type: 'gpt2'; use one of llama, qwen2, qwen3"),
        ({"model_type": None}, "model_type: None"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu'; only 'silu' is computed here"),
        ({"attention_bias": True}, "attention_bias: True"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_scaling: 'yarn'"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling: 'linear'"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters: 'llama3'"),
        ({"rope_scaling": "yarn"}, "rope_scaling: 'yarn'; it must hold fields"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: 3; it must divide"),
        ({"hidden_size": 66}, "hidden_size: 66; give head_dim"),
        ({"head_dim": 15}, "head_dim: 15"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: 0; give a positive whole number"),
        ({"vocab_size": "512"}, "vocab_size: '512'"),
        ({"vocab_size": True}, "vocab_size: True"),
        ({"rms_norm_eps": -1}, "rms_norm_eps: -1"),
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
