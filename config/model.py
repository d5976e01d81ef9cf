"""A model's shape: what we read of its Hugging Face config.json, the only description of it. No torch."""

from dataclasses import dataclass

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "glm4_moe": "Glm4MoeForCausalLM",
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
    """Width of the expert that every token passes; None: there is none."""
    shared_gate: bool = False
    """What the shared expert gives is scaled by a sigmoid gate of its own (Qwen2-MoE)."""
    normalized: bool
    """The chosen experts' probabilities are scaled to sum to 1 (norm_topk_prob)."""
    aux_loss_coef: float
    """The config's weight of the load balancing loss (router_aux_loss_coef)."""
    layers: tuple[int, ...]
    """Numbers of the layers that have experts; the others are dense."""
    biased: bool = False
    """Scores are sigmoids, not a softmax, and a bias is added to them for the choice alone, which keeps the experts in
    balance without a loss (https://arxiv.org/abs/2408.15664; GLM-4.5, DeepSeek-V3)."""
    scale: float = 1.0
    """Factor of what the chosen experts give together (routed_scaling_factor)."""


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
    rotary_share: float = 1.0
    """Share of each head's numbers that are turned, the first ones (partial_rotary_factor)."""
    experts: ExpertShape | None = None
    """None: every layer is dense."""

    def has_experts(self, layer: int) -> bool:
        """Whether layer number `layer` has a mixture of experts."""
        return self.experts is not None and layer in self.experts.layers

    def num_parameters(self) -> int:
        """Number of weights, a tied embedding counted once; biases that choose experts are none."""
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
                total += sparse * self.hidden_size * (3 * experts.shared_ffn_size + experts.shared_gate)
        return total + (self.num_layers - sparse) * 3 * self.hidden_size * self.ffn_size
