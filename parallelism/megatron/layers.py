"""What a layer is made of: Transformer Engine's norms and linear layers, or our own where that is not installed.

Imported only after compat.prepare().
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.moe.moe_layer import MoELayer, MoESubmodules
from megatron.core.transformer.moe.shared_experts import SharedExpertMLP
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from torch.nn.functional import scaled_dot_product_attention

from .experts import Experts, Router


class RMSNorm(torch.nn.RMSNorm):
    """RMSNorm [..., hidden_size] in float32, marked so that its gradient is summed under sequence parallel.

    Without the mark tensor ranks drift apart silently: finalize_model_grads skips unmarked parameters.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-6, **_: Any) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        self._epsilon = eps
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise in float32 and round before the weight, as Hugging Face's and vLLM's norms do."""
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self._epsilon)
        return self.weight * (wide * scale).to(x.dtype)


class CoreAttention(torch.nn.Module):
    """Causal attention by torch's scaled_dot_product_attention: fused, no [s, s] matrix kept.

    query [s, b, heads, head_dim], key and value [s, b, kv_heads, head_dim] -> [s, b, heads * head_dim]. With
    packed_seq_params (Packed) their attention is taken; a mask is never given.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        packed_seq_params: "Packed | None" = None,
        **_: Any,
    ) -> torch.Tensor:
        """See the class."""
        assert attention_mask is None
        if packed_seq_params is not None:
            return packed_seq_params.attend(query, key, value)
        q, k, v = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        out = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
        return out.permute(2, 0, 1, 3).flatten(2)


class Packed(PackedSeqParams):  # type: ignore[misc]
    """How megatron-core carries to every layer's attention what a micro batch's own attention is.

    Its own packed form (`thd`, one row of tokens) needs Transformer Engine; here samples stay rows (`sbhd`).
    """

    def __init__(self, attend: Callable[..., torch.Tensor], length: int) -> None:
        """`attend` takes query, key and value as CoreAttention does; samples have `length` tokens over all ranks."""
        super().__init__(qkv_format="sbhd", max_seqlen_q=length, max_seqlen_kv=length)
        self.attend = attend


@dataclass(frozen=True, kw_only=True)
class _Modules:
    """Whose norms and linear layers a layer is made of."""

    norm: Any = RMSNorm
    column: Any = ColumnParallelLinear
    row: Any = RowParallelLinear
    normed_column: Any = None
    """A norm and a column parallel layer in one; None: there is no such thing."""


def block_spec(
    config: TransformerConfig, sparse: Sequence[bool], *, transformer_engine: bool
) -> TransformerBlockSubmodules:
    """Spec of the layers that one pipeline stage holds, and of the final norm; `sparse` says which have experts."""
    modules = _of_transformer_engine() if transformer_engine else _Modules()
    layers = [_layer(config, modules, has_experts) for has_experts in sparse]
    return TransformerBlockSubmodules(layer_specs=layers, layer_norm=modules.norm)


def _of_transformer_engine() -> _Modules:
    """Attention itself stays ours, which knows documents and context parallel; so do the experts' products."""
    from megatron.core.extensions import transformer_engine as te

    return _Modules(
        norm=te.TENorm,
        column=te.TEColumnParallelLinear,
        row=te.TERowParallelLinear,
        normed_column=te.TELayerNormColumnParallelLinear,
    )


def _layer(config: TransformerConfig, modules: _Modules, has_experts: bool) -> ModuleSpec:
    head_norm = modules.norm if config.qk_layernorm else IdentityOp
    fused = modules.normed_column is not None
    attention = ModuleSpec(
        module=SelfAttention,
        params={"attn_mask_type": AttnMaskType.causal},
        submodules=SelfAttentionSubmodules(
            linear_qkv=modules.normed_column if fused else modules.column,
            core_attention=CoreAttention,
            linear_proj=modules.row,
            q_layernorm=head_norm,
            k_layernorm=head_norm,
        ),
    )
    return ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=IdentityOp if fused else modules.norm,
            self_attention=attention,
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=modules.norm if has_experts or not fused else IdentityOp,
            mlp=_experts(modules) if has_experts else _dense(modules),
            mlp_bda=get_bias_dropout_add,
        ),
    )


def _dense(modules: _Modules) -> ModuleSpec:
    first = modules.normed_column or modules.column
    return ModuleSpec(module=MLP, submodules=MLPSubmodules(linear_fc1=first, linear_fc2=modules.row))


def _experts(modules: _Modules) -> ModuleSpec:
    shared = MLPSubmodules(linear_fc1=modules.column, linear_fc2=modules.row)
    return ModuleSpec(
        module=MoELayer,
        submodules=MoESubmodules(
            experts=ModuleSpec(module=Experts),
            shared_experts=ModuleSpec(module=SharedExpertMLP, submodules=shared),
            router=Router,
        ),
    )
