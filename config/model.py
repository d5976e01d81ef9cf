"""What we read of a Hugging Face config.json: the only description of a model. No torch, no transformers."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError

FAMILIES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes and switches of a dense decoder. Weight shapes follow: q [num_heads*head_dim, hidden_size], and so on."""

    family: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_size: int
    vocab_size: int
    rope_theta: float
    norm_eps: float
    tied: bool
    """The output layer is the embedding, and has no tensor of its own."""
    qk_norm: bool
    """RMSNorm over each head of queries and keys (Qwen3)."""
    qkv_bias: bool
    """Bias on q, k and v projections (Qwen2)."""
    max_positions: int
    init_std: float

    def num_parameters(self) -> int:
        """Number of weights, a tied embedding counted once."""
        attention = self.hidden_size * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        bias = self.head_dim * (self.num_heads + 2 * self.num_kv_heads) * self.qkv_bias
        norms = 2 * self.hidden_size + 2 * self.head_dim * self.qk_norm
        layer = attention + bias + norms + 3 * self.hidden_size * self.ffn_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied else 2)
        return self.num_layers * layer + embeddings + self.hidden_size


def read_model(path: Path) -> ModelShape:
    """Read a config.json (or the folder that holds one).

    Raises UserError naming the file and key if the file is unreadable or asks for something no engine here computes.
    """
    path = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"model: {path}", "no such file", "give a Hugging Face config.json") from None
    except (OSError, ValueError) as error:
        raise UserError(f"model: {path}", f"cannot be read ({error})", "give a Hugging Face config.json") from None
    if not isinstance(config, dict):
        raise UserError(f"model: {path}", "holds no fields", "give a Hugging Face config.json")
    return _Reader(config, path).shape()


class _Reader:
    """Takes keys out of one config.json and complains about them by name."""

    def __init__(self, config: dict[str, Any], path: Path) -> None:
        self.config, self.path = config, path

    def shape(self) -> ModelShape:
        family = self.config.get("model_type")
        if family not in FAMILIES:
            raise self._error("model_type", family, f"use one of {', '.join(FAMILIES)}")
        self._refuse_unsupported()
        heads = self._int("num_attention_heads")
        hidden = self._int("hidden_size")
        kv_heads = self._int("num_key_value_heads", heads)
        if heads % kv_heads:
            raise self._error("num_key_value_heads", kv_heads, f"it must divide num_attention_heads {heads}")
        if not self.config.get("head_dim") and hidden % heads and family != "qwen3":
            raise self._error("hidden_size", hidden, f"give head_dim, or a multiple of num_attention_heads {heads}")
        head_dim = self._int("head_dim", 128 if family == "qwen3" else hidden // heads)
        if head_dim % 2:
            raise self._error("head_dim", head_dim, "rotary embeddings need an even one")
        return ModelShape(
            family=str(family),
            num_layers=self._int("num_hidden_layers"),
            hidden_size=hidden,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            ffn_size=self._int("intermediate_size"),
            vocab_size=self._int("vocab_size"),
            rope_theta=self._rope_theta(),
            norm_eps=self._float("rms_norm_eps", 1e-6),
            tied=bool(self.config.get("tie_word_embeddings", False)),
            qk_norm=family == "qwen3",
            qkv_bias=family == "qwen2",
            max_positions=self._int("max_position_embeddings", 2048 if family == "llama" else 32768),
            init_std=self._float("initializer_range", 0.02),
        )

    def _refuse_unsupported(self) -> None:
        """A key that changes the computation and that we do not compute must stop the run, not be dropped."""
        only = {
            "hidden_act": ("silu",),
            "attention_bias": (False, None),
            "mlp_bias": (False, None),
            "use_sliding_window": (False, None),
            "attention_dropout": (0, 0.0, None),
            "pretraining_tp": (1, None),
        }
        for key, good in only.items():
            if self.config.get(key, good[0]) not in good:
                raise self._error(key, self.config[key], f"only {good[0]!r} is computed here")

    def _rope_theta(self) -> float:
        """transformers 5 keeps it in rope_parameters, earlier ones at the top, with rope_scaling beside it."""
        rope = self.config.get("rope_parameters") or {}
        scaling = self.config.get("rope_scaling") or {}
        for name, part in (("rope_parameters", rope), ("rope_scaling", scaling)):
            if not isinstance(part, dict):
                raise self._error(name, part, "it must hold fields")
            kind = part.get("rope_type", part.get("type", "default"))
            if kind != "default":
                raise self._error(name, kind, "only the default rotary embedding is computed here")
        if "rope_theta" in rope:
            return float(rope["rope_theta"])
        return self._float("rope_theta", 10000.0)

    def _int(self, key: str, default: int | None = None) -> int:
        value = self.config.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self._error(key, value, "give a positive whole number")
        return value

    def _float(self, key: str, default: float) -> float:
        value = self.config.get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
            raise self._error(key, value, "give a positive number")
        return float(value)

    def _error(self, key: str, value: object, remedy: str) -> UserError:
        return UserError(f"model: {self.path}: {key}", repr(value), remedy)
