"""Attention of transformers' models as this engine computes it: documents kept apart, and Ulysses over context ranks.

Ulysses (https://arxiv.org/abs/2309.14509): each rank has a share of the positions and all heads; before attention an
all-to-all gives it all positions and a share of the heads, and another takes them back.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch.nn.functional import scaled_dot_product_attention

from ..documents import Documents, attend

NAME = "trainwright"


class Attention:
    """What transformers calls in every layer. `documents` are the current micro batch's."""

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        """`group`: the context ranks that share samples; None if there is one."""
        self._group = group
        self.documents: Documents | None = None

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, None]:
        """query [b, heads, s, head_dim], key and value [b, kv_heads, s, head_dim] -> [b, s, heads, head_dim]."""
        assert attention_mask is None
        if self._group is None:
            return self._attend(query, key, value), None
        size = dist.get_world_size(self._group)
        key, value = (_enough_heads(x, size) for x in (key, value))
        heads = [_exchange(x, self._group, scatter=1, gather=2) for x in (query, key, value)]
        return _exchange(self._attend(*heads), self._group, scatter=1, gather=2), None

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Causal, over whole samples."""
        if self.documents is None:
            grouped = query.shape[1] != key.shape[1]
            out = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)
            return out.transpose(1, 2)
        count, heads, length, head_dim = query.shape
        q, k, v = (x.permute(2, 0, 1, 3) for x in (query, key, value))
        return attend(q, k, v, self.documents).transpose(0, 1).reshape(count, length, heads, head_dim)


def _enough_heads(x: torch.Tensor, size: int) -> torch.Tensor:
    """Key-value heads repeated as often as it takes for each rank to have one."""
    return x.repeat_interleave(size // x.shape[1], 1) if x.shape[1] < size else x


class _Exchange(torch.autograd.Function):
    """All-to-all: dim `scatter` is cut into shares for the ranks, whose shares of dim `gather` are put together."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: Any, scatter: int, gather: int) -> torch.Tensor:
        ctx.group, ctx.dims = group, (scatter, gather)
        sent = [part.contiguous() for part in torch.chunk(x, dist.get_world_size(group), dim=scatter)]
        received = torch.empty(len(sent), *sent[0].shape, dtype=x.dtype, device=x.device)
        dist.all_to_all_single(received, torch.stack(sent), group=group)
        return torch.cat(list(received), dim=gather)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        scatter, gather = ctx.dims
        return _exchange(gradients[0], ctx.group, scatter=gather, gather=scatter), None, None, None


def _exchange(x: torch.Tensor, group: dist.ProcessGroup, *, scatter: int, gather: int) -> torch.Tensor:
    exchange: Any = _Exchange
    exchanged: torch.Tensor = exchange.apply(x, group, scatter, gather)
    return exchanged
