"""Reading a Hugging Face config.json: every key that changes what is computed is understood or refused by name."""

import json
from pathlib import Path
from typing import Any

from .errors import UserError
from .model import FAMILIES, ExpertShape, ModelShape, RopeScaling
from .model_defaults import DEFAULTS, Defaults


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
        if self.config.get("model_type") not in FAMILIES:
            raise self._error("model_type", self.config.get("model_type"), f"use one of {', '.join(FAMILIES)}")
        family = str(self.config["model_type"])
        self._refuse_unsupported(family)
        defaults, glm = DEFAULTS[family], family == "glm4_moe"
        heads = self._int("num_attention_heads")
        hidden = self._int("hidden_size")
        missing = "num_key_value_heads" not in self.config  # a null is as many as heads in every family
        kv_heads = self._int("num_key_value_heads", (missing and defaults.num_kv_heads) or heads)
        if heads % kv_heads:
            raise self._error("num_key_value_heads", kv_heads, f"it must divide num_attention_heads {heads}")
        head_dim = self._head_dim(family, heads, hidden)
        return ModelShape(
            family=family,
            num_layers=self._int("num_hidden_layers"),
            hidden_size=hidden,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            ffn_size=self._int("intermediate_size"),
            vocab_size=self._int("vocab_size"),
            rope_theta=self._rope_theta(defaults),
            rope_scaling=self._rope_scaling(),
            rotary_share=self._rotary_share(family, head_dim),
            norm_eps=self._float("rms_norm_eps", defaults.norm_eps),
            tied=bool(self.config.get("tie_word_embeddings", False)),
            qk_norm=family in ("qwen3", "qwen3_moe") or (glm and bool(self.config.get("use_qk_norm", False))),
            qkv_bias=family in ("qwen2", "qwen2_moe") or (glm and bool(self.config.get("attention_bias", False))),
            max_positions=self._int("max_position_embeddings", defaults.max_positions),
            init_std=self._float("initializer_range", 0.02),
            experts=self._experts(family),
        )

    def _head_dim(self, family: str, heads: int, hidden: int) -> int:
        by_128 = family == "qwen3"
        if not self.config.get("head_dim") and hidden % heads and not by_128:
            raise self._error("hidden_size", hidden, f"give head_dim, or a multiple of num_attention_heads {heads}")
        head_dim = self._int("head_dim", 128 if by_128 else hidden // heads)
        if family in ("qwen2", "qwen2_moe") and head_dim * heads != hidden:
            # transformers would take it from the file, vLLM would not: an export could not be served.
            remedy = f"{family} has hidden_size / num_attention_heads, here {hidden}/{heads}; leave head_dim out"
            raise self._error("head_dim", head_dim, remedy)
        if head_dim % 2:
            raise self._error("head_dim", head_dim, "rotary embeddings need an even one")
        return head_dim

    def _experts(self, family: str) -> ExpertShape | None:
        """What the family's config says of experts; the defaults are those of transformers' config classes."""
        shared = None
        if family == "mixtral":
            count, active, ffn = self._int("num_local_experts", 8), 2, self._int("intermediate_size")
        elif family == "glm4_moe":
            count, active, ffn = self._int("n_routed_experts", 128), 8, self._int("moe_intermediate_size", 1408)
            shared = self._int("n_shared_experts", 1) * ffn
        elif family in ("qwen2_moe", "qwen3_moe"):
            older = family == "qwen2_moe"
            count, active = self._int("num_experts", 60 if older else 128), 4 if older else 8
            ffn = self._int("moe_intermediate_size", 1408 if older else 768)
            shared = self._int("shared_expert_intermediate_size", 5632) if older else None
        else:
            return None
        active = self._int("num_experts_per_tok", active)
        if active > count:
            raise self._error("num_experts_per_tok", active, f"there are {count} experts")
        biased = family == "glm4_moe"
        normalized = family in ("mixtral", "glm4_moe") or bool(self.config.get("norm_topk_prob", False))
        if normalized and active == 1:
            given = "use 2 or more" if family in ("mixtral", "glm4_moe") else "set norm_topk_prob to false"
            raise self._error("num_experts_per_tok", 1, f"its share would always be 1: {given}")
        layers = tuple(number for number in range(self._int("num_hidden_layers")) if self._is_sparse(family, number))
        if not layers and family == "glm4_moe":
            raise self._error("first_k_dense_replace", self.config.get("first_k_dense_replace", 1), "no layer is left")
        if not layers:
            return None
        return ExpertShape(
            num_experts=count,
            num_active=active,
            ffn_size=ffn,
            shared_ffn_size=shared,
            shared_gate=family == "qwen2_moe",
            normalized=normalized,
            aux_loss_coef=self._not_negative("router_aux_loss_coef", 0.0 if biased else 0.001),
            layers=layers,
            biased=biased,
            scale=self._float("routed_scaling_factor", 1.0) if biased else 1.0,
        )

    def _is_sparse(self, family: str, layer: int) -> bool:
        """Qwen names dense layers one by one, or has experts in every n-th; GLM's first ones are dense."""
        if family == "mixtral":
            return True
        if family == "glm4_moe":
            first = self.config.get("first_k_dense_replace", 1)
            if not isinstance(first, int) or isinstance(first, bool) or first < 0:
                raise self._error("first_k_dense_replace", first, "give a number of layers")
            return layer >= first
        dense = self.config.get("mlp_only_layers") or []
        if not isinstance(dense, list) or not all(isinstance(number, int) for number in dense):
            raise self._error("mlp_only_layers", dense, "give a list of layer numbers")
        return layer not in dense and (layer + 1) % self._int("decoder_sparse_step", 1) == 0

    def _refuse_unsupported(self, family: str) -> None:
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
        if family == "qwen2_moe":
            only["qkv_bias"] = (True, None)
        if family == "mixtral":
            only["sliding_window"] = (None,)  # Qwen's configs hold one that use_sliding_window switches off
        if family == "glm4_moe":
            del only["attention_bias"]
            only |= {"norm_topk_prob": (True,), "n_group": (1, None), "topk_group": (1, None)}
            if self.config.get("tie_word_embeddings"):
                raise self._error(
                    "tie_word_embeddings", True, f"vLLM serves {family} with an output layer of its own only"
                )
        if self.config.get("quantization_config") is not None:
            remedy = "weights are trained unquantized: take it out, and give such ones to checkpoint.init_from"
            raise self._error("quantization_config", self.config["quantization_config"], remedy)
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

    def _rope_theta(self, defaults: Defaults) -> float:
        key, fields = self._rope()
        if "rope_theta" in fields:
            return self._positive(f"{key}.rope_theta", fields["rope_theta"])
        return self._float("rope_theta", defaults.rope_theta)

    def _rotary_share(self, family: str, head_dim: int) -> float:
        key, fields = self._rope()
        default = DEFAULTS[family].rotary_share
        if fields.get("partial_rotary_factor") is not None:
            key, share = f"{key}.partial_rotary_factor", fields["partial_rotary_factor"]
        else:
            key, share = "partial_rotary_factor", self.config.get("partial_rotary_factor", default)
            # A null means the whole head to transformers; vLLM takes half of GLM's, so there it is refused.
            share = default if share is None and family != "glm4_moe" else share
        share = self._positive(key, share)
        if share != 1.0 and family != "glm4_moe":
            raise self._error(key, share, f"{family} turns whole heads; take it out")
        if share > 1 or (head_dim * share) % 2:
            raise self._error(key, share, f"it must leave an even part of head_dim {head_dim}")
        return share

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
