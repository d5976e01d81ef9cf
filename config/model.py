"""What we read of a Hugging Face config.json: the only description of a model. No torch, no transformers."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}


@dataclass(frozen=True, kw_only=True)
class ExpertShape:
    """Sizes and switches of the layers that have a mixture of experts in place of the dense feed-forward."""

    num_experts: int
    num_active: int
    """Experts that each token is sent to (top-k)."""
    ffn_size: int
    """Width of one expert."""
    shared_ffn_size: int | None
    """Width of the expert that every token passes, with a sigmoid gate of its own (Qwen2-MoE); None: there is none."""
    normalized: bool
    """The chosen experts' probabilities are scaled to sum to 1 (norm_topk_prob)."""
    aux_loss_coef: float
    """The config's weight of the load balancing loss (router_aux_loss_coef)."""
    layers: tuple[int, ...]
    """Numbers of the layers that have experts; the others are dense."""


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Llama 3's stretch of the rotary embedding (rope_type llama3): long waves by `factor`, short ones not at all."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes and switches of a decoder. Weight shapes follow: q [num_heads*head_dim, hidden_size], and so on."""

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
    rope_scaling: RopeScaling | None = None
    """None: the plain rotary embedding."""
    experts: ExpertShape | None = None
    """None: every layer is dense."""

    def has_experts(self, layer: int) -> bool:
        """Whether layer number `layer` has a mixture of experts."""
        return self.experts is not None and layer in self.experts.layers

    def num_parameters(self) -> int:
        """Number of weights, a tied embedding counted once."""
        return self._count(all_experts=True)

    def num_active_parameters(self) -> int:
        """Number of weights that one token passes through: num_parameters without the experts it is not sent to."""
        return self._count(all_experts=False)

    def _count(self, *, all_experts: bool) -> int:
        attention = self.hidden_size * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        bias = self.head_dim * (self.num_heads + 2 * self.num_kv_heads) * self.qkv_bias
        norms = 2 * self.hidden_size + 2 * self.head_dim * self.qk_norm
        total = self.num_layers * (attention + bias + norms) + self.hidden_size
        total += self.vocab_size * self.hidden_size * (1 if self.tied else 2)
        sparse = 0
        if self.experts is not None:
            experts, sparse = self.experts, len(self.experts.layers)
            width = experts.ffn_size * (experts.num_experts if all_experts else experts.num_active)
            total += sparse * self.hidden_size * (3 * width + experts.num_experts)
            if experts.shared_ffn_size is not None:
                total += sparse * self.hidden_size * (3 * experts.shared_ffn_size + 1)
        return total + (self.num_layers - sparse) * 3 * self.hidden_size * self.ffn_size


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
        by_128 = family in ("qwen3", "qwen3_moe")
        if not self.config.get("head_dim") and hidden % heads and not by_128:
            raise self._error("hidden_size", hidden, f"give head_dim, or a multiple of num_attention_heads {heads}")
        head_dim = self._int("head_dim", 128 if by_128 else hidden // heads)
        if family in ("qwen2", "qwen2_moe") and head_dim * heads != hidden:
            # transformers would take it from the file, vLLM would not: an export could not be served.
            remedy = f"{family} has hidden_size / num_attention_heads, here {hidden}/{heads}; leave head_dim out"
            raise self._error("head_dim", head_dim, remedy)
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
            rope_scaling=self._rope_scaling(),
            norm_eps=self._float("rms_norm_eps", 1e-6),
            tied=bool(self.config.get("tie_word_embeddings", False)),
            qk_norm=family in ("qwen3", "qwen3_moe"),
            qkv_bias=family in ("qwen2", "qwen2_moe"),
            max_positions=self._int("max_position_embeddings", 2048 if family == "llama" else 32768),
            init_std=self._float("initializer_range", 0.02),
            experts=self._experts(str(family)),
        )

    def _experts(self, family: str) -> ExpertShape | None:
        """What the family's config says of experts; the defaults are those of transformers' config classes."""
        if family == "mixtral":
            count, active, ffn = self._int("num_local_experts", 8), 2, self._int("intermediate_size")
        elif family in ("qwen2_moe", "qwen3_moe"):
            older = family == "qwen2_moe"
            count, active = self._int("num_experts", 60 if older else 128), 4 if older else 8
            ffn = self._int("moe_intermediate_size", 1408 if older else 768)
        else:
            return None
        active = self._int("num_experts_per_tok", active)
        if active > count:
            raise self._error("num_experts_per_tok", active, f"there are {count} experts")
        normalized = family == "mixtral" or bool(self.config.get("norm_topk_prob", False))
        if normalized and active == 1:
            raise self._error("num_experts_per_tok", 1, "its share would always be 1: set norm_topk_prob to false")
        layers = tuple(number for number in range(self._int("num_hidden_layers")) if self._is_sparse(family, number))
        if not layers:
            return None
        return ExpertShape(
            num_experts=count,
            num_active=active,
            ffn_size=ffn,
            shared_ffn_size=self._int("shared_expert_intermediate_size", 5632) if family == "qwen2_moe" else None,
            normalized=normalized,
            aux_loss_coef=self._not_negative("router_aux_loss_coef", 0.001),
            layers=layers,
        )

    def _is_sparse(self, family: str, layer: int) -> bool:
        """Qwen names dense layers one by one, or has experts in every n-th."""
        if family == "mixtral":
            return True
        dense = self.config.get("mlp_only_layers") or []
        if not isinstance(dense, list) or not all(isinstance(number, int) for number in dense):
            raise self._error("mlp_only_layers", dense, "give a list of layer numbers")
        return layer not in dense and (layer + 1) % self._int("decoder_sparse_step", 1) == 0

    def _refuse_unsupported(self) -> None:
        """A key that changes the computation and that we do not compute must stop the run, not be dropped."""
        only: dict[str, tuple[object, ...]] = {
            "hidden_act": ("silu",),
            "attention_bias": (False, None),
            "mlp_bias": (False, None),
            "use_sliding_window": (False, None),
            "attention_dropout": (0, 0.0, None),
            "pretraining_tp": (1, None),
            "router_jitter_noise": (0, 0.0, None),
        }
        if self.config.get("model_type") == "mixtral":
            only["sliding_window"] = (None,)  # Qwen's configs hold one that use_sliding_window switches off
        for key, good in only.items():
            if self.config.get(key, good[0]) not in good:
                raise self._error(key, self.config[key], f"only {good[0]!r} is computed here")

    def _rope(self) -> tuple[str, dict[str, Any]]:
        """(key, fields): transformers 5 keeps all in rope_parameters, earlier ones rope_scaling beside rope_theta."""
        key = "rope_parameters" if self.config.get("rope_parameters") else "rope_scaling"
        fields = self.config.get(key) or {}
        if not isinstance(fields, dict):
            raise self._error(key, fields, "it must hold fields")
        return key, fields

    def _rope_theta(self) -> float:
        key, fields = self._rope()
        if "rope_theta" in fields:
            return self._positive(f"{key}.rope_theta", fields["rope_theta"])
        return self._float("rope_theta", 10000.0)

    def _rope_scaling(self) -> RopeScaling | None:
        key, fields = self._rope()
        kind = fields.get("rope_type", fields.get("type", "default"))
        if kind == "default":
            return None
        if kind != "llama3":
            raise self._error(key, kind, "only the rotary embeddings default and llama3 are computed here")
        numbers = {
            name: self._positive(f"{key}.{name}", fields.get(name))
            for name in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        }
        if numbers["high_freq_factor"] <= numbers["low_freq_factor"]:
            raise self._error(
                f"{key}.high_freq_factor", numbers["high_freq_factor"], "it must be above low_freq_factor"
            )
        original = int(numbers.pop("original_max_position_embeddings"))
        return RopeScaling(original_max_positions=original, **numbers)

    def _int(self, key: str, default: int | None = None) -> int:
        value = self.config.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self._error(key, value, "give a positive whole number")
        return value

    def _float(self, key: str, default: float) -> float:
        return self._positive(key, self.config.get(key, default))

    def _positive(self, key: str, value: object) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
            raise self._error(key, value, "give a positive number")
        return float(value)

    def _not_negative(self, key: str, default: float) -> float:
        value = self.config.get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0:
            raise self._error(key, value, "give 0 or a positive number")
        return float(value)

    def _error(self, key: str, value: object, remedy: str) -> UserError:
        return UserError(f"model: {self.path}: {key}", repr(value), remedy)
