"""Attention that stays inside documents, by their cumulative lengths: time and memory never grow with length squared.

Only torch is imported here.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import scaled_dot_product_attention

SHARED = 64
"""Tokens up to which short documents share a call: larger masks cost more than the calls that they save."""
_NO_LOOKING_AHEAD = (-1, 0)


@dataclass(frozen=True)
class Run:
    """Queries that lie side by side, and the keys that they see, in one call."""

    num_queries: int
    num_keys: int
    allowed: torch.Tensor | None
    """bool [num_queries, num_keys], True where attention is allowed; None for a single whole document."""


class Ends:
    """Cumulative lengths of sequences that are laid end to end, in memory and on the device."""

    def __init__(self, cumulative: NDArray[np.int32], device: torch.device | str) -> None:
        """`cumulative` int32 [num_sequences + 1], from 0."""
        self._cumulative, self._device = cumulative, device
        self.longest = int(np.diff(cumulative).max())
        """Tokens of the longest sequence."""

    @cached_property
    def cumulative(self) -> torch.Tensor:
        """The cumulative lengths on the device, int32 [num_sequences + 1]."""
        return torch.from_numpy(self._cumulative).to(self._device, non_blocking=True)


class Spans(Protocol):
    """Which keys each query sees: of each pair of sequences the last query sees all keys, the one before one less."""

    queries: Ends
    keys: Ends

    @property
    def runs(self) -> list[Run]:
        """The same, by the calls that a library without a kernel for it needs."""
        ...


class Documents:
    """Documents of a micro batch whose samples are laid end to end."""

    def __init__(self, cumulative: NDArray[np.int32], device: torch.device | str) -> None:
        """`cumulative` int32 [num_documents + 1]: cumulative lengths, from 0 to the micro batch's tokens."""
        self._ends, self._device = cumulative, device
        self.queries = self.keys = Ends(cumulative, device)

    @cached_property
    def runs(self) -> list[Run]:
        """The documents in their order: those above SHARED tokens alone, shorter ones together as far as they fit."""
        ends, first, runs = self._ends, 0, []
        while first + 1 < len(ends):
            fitting = int(np.searchsorted(ends, ends[first] + SHARED, "right")) - 1
            stop = max(fitting, first + 1)
            length = int(ends[stop] - ends[first])
            runs.append(Run(length, length, self._allowed(first, stop)))
            first = stop
        return runs

    def positions(self, shape: torch.Size) -> torch.Tensor:
        """Position of each token in its document, int64 of this shape (samples by tokens)."""
        lengths = np.diff(self._ends)
        places = np.arange(self._ends[-1], dtype=np.int64) - np.repeat(self._ends[:-1], lengths)
        return torch.from_numpy(places).to(self._device).view(shape)

    def _allowed(self, first: int, stop: int) -> torch.Tensor | None:
        if stop == first + 1:
            return None
        lengths = np.diff(self._ends[first : stop + 1])
        numbers = torch.from_numpy(np.repeat(np.arange(stop - first), lengths)).to(self._device)
        return (numbers[:, None] == numbers).tril()


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, documents: Documents) -> torch.Tensor:
    """Causal attention within documents.

    query [s, b, heads, head_dim], key and value [s, b, kv_heads, head_dim], heads a multiple of kv_heads
    -> [s, b, heads * head_dim].
    """
    length, count = query.shape[:2]
    q, k, v = (x.transpose(0, 1).flatten(0, 1) for x in (query, key, value))
    out = attend_rows(q, k, v, documents)
    return out.view(count, length, -1).transpose(0, 1)


def attend_rows(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spans: Spans) -> torch.Tensor:
    """q [queries, heads, head_dim], k and v [keys, kv_heads, head_dim] -> [queries, heads, head_dim]."""
    return in_one_kernel(q, k, v, spans) if _has_kernel(q) else _run_by_run(q, k, v, spans.runs)


def _run_by_run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, runs: list[Run]) -> torch.Tensor:
    """As attend_rows, a call per run.

    Split once: its gradient is one concatenation, while that of a slice is as long as the whole.
    """
    num_keys = [run.num_keys for run in runs]
    split = torch.split(q, [run.num_queries for run in runs]), torch.split(k, num_keys), torch.split(v, num_keys)
    parts = []
    for run, *qkv in zip(runs, *split, strict=True):
        query, key, value = (x.transpose(0, 1).unsqueeze(0) for x in qkv)
        out = scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=run.allowed,
            is_causal=run.allowed is None,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        parts.append(out.squeeze(0).transpose(0, 1))
    return torch.cat(parts)


def in_one_kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spans: Spans) -> torch.Tensor:
    """As attend_rows, by torch's attention over sequences of varying length."""
    kernel = _kernel()
    assert kernel is not None
    mine, theirs = spans.queries, spans.keys
    out: torch.Tensor = kernel(
        q,
        k,
        v,
        mine.cumulative,
        theirs.cumulative,
        mine.longest,
        theirs.longest,
        window_size=_NO_LOOKING_AHEAD,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out


def _has_kernel(q: torch.Tensor) -> bool:
    """Whether torch has a kernel for these: 16-bit numbers on a GPU since Ampere, heads of whole vectors."""
    if not q.is_cuda or q.dtype not in (torch.bfloat16, torch.float16) or q.shape[-1] % 8 or q.shape[-1] > 256:
        return False
    return _kernel() is not None and torch.cuda.get_device_capability(q.device) >= (8, 0)


@cache
def _kernel() -> Callable[..., Any] | None:
    """torch's varlen_attn, if it can be told of grouped heads and of causality as here; older ones cannot."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    return varlen_attn if {"window_size", "enable_gqa"} <= known.keys() else None
