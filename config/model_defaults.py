"""What a Hugging Face config.json means by a key that it leaves out, by family: transformers' own defaults."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Of one family's config class in transformers, where they differ from those of another."""

    max_positions: int
    num_kv_heads: int | None
    """None: as many as heads."""
    norm_eps: float = 1e-6
    rope_theta: float = 1e4
    rotary_share: float = 1.0


DEFAULTS = {
    "llama": Defaults(max_positions=2048, num_kv_heads=None),
    "qwen2": Defaults(max_positions=32768, num_kv_heads=32),
    "qwen3": Defaults(max_positions=32768, num_kv_heads=32),
    "mixtral": Defaults(max_positions=131072, num_kv_heads=8, norm_eps=1e-5, rope_theta=1e6),
    "qwen2_moe": Defaults(max_positions=32768, num_kv_heads=16),
    "qwen3_moe": Defaults(max_positions=32768, num_kv_heads=4),
    "glm4_moe": Defaults(max_positions=131072, num_kv_heads=8, norm_eps=1e-5, rotary_share=0.5),
}
