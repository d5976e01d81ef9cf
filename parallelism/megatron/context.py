"""Context parallel: which positions of each sample a rank has, and attention of its queries to all ranks' keys."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from ...config.layout import Coordinates, Layout
from ..documents import Ends, Run, attend_rows

_Places = NDArray[np.int64]


@dataclass(frozen=True)
class ContextShare:
    """One rank's share of the positions of every sample.

    A sample is cut into two chunks for each rank; rank r has chunk r and the r-th from the end, so that under causal
    attention all ranks have the same number of pairs (megatron-core's order, which its rotary embedding assumes).
    """

    size: int
    rank: int

    @classmethod
    def of(cls, layout: Layout, place: Coordinates) -> "ContextShare":
        """The share of the rank at a place of the layout."""
        return cls(layout.context, place.context)

    @property
    def chunks(self) -> tuple[int, int]:
        """Numbers of this rank's two chunks."""
        return self.rank, 2 * self.size - 1 - self.rank

    def local(self, x: torch.Tensor) -> torch.Tensor:
        """x [b, s, ...] -> this rank's positions [b, s / size, ...]."""
        if self.size == 1:
            return x
        parts = torch.chunk(x, 2 * self.size, dim=1)
        return torch.cat([parts[chunk] for chunk in self.chunks], dim=1)

    def whole(self, x: torch.Tensor) -> torch.Tensor:
        """The other way, from all ranks of the group: x [b, s / size, ...] -> [b, s, ...]."""
        if self.size == 1:
            return x
        gathered = _gather(x.transpose(0, 1).contiguous())
        length = len(gathered)
        rows = torch.from_numpy(self.rows(np.arange(length), length)).to(x.device)
        return gathered.index_select(0, rows).transpose(0, 1)

    def rows(self, positions: _Places, length: int) -> _Places:
        """Where positions of samples of `length` tokens lie when the ranks' shares are gathered one after another."""
        chunk_length = length // (2 * self.size)
        chunk, inside = np.divmod(positions, chunk_length)
        late = chunk >= self.size
        rank = np.where(late, 2 * self.size - 1 - chunk, chunk)
        rows: _Places = (2 * rank + late) * chunk_length + inside
        return rows


class SharedContext:
    """Causal attention of one micro batch under context parallel: each rank's queries, the keys and values of all.

    Keys and values are gathered in every layer, and their gradients summed back (all-gather, reduce-scatter), as Llama
    3 was trained (https://arxiv.org/abs/2407.21783, section 3.3.2): they are small where key-value heads are few, and
    documents cost nothing. What a chunk of queries may not see is not computed.
    """

    def __init__(self, share: ContextShare, ends: NDArray[np.int32], length: int, device: torch.device | str) -> None:
        """`ends` int32 [num_documents + 1]: cumulative lengths of documents, of samples of `length` laid end to end."""
        self._share, self._device = share, device
        query_starts, query_stops, self._key_starts = self._cut(ends.astype(np.int64), length)
        self._num_queries, self._num_keys = query_stops - query_starts, query_stops - self._key_starts
        self._length, self._num_samples = length, int(ends[-1]) // length
        self.queries, self.keys = (Ends(_cumulative(n), device) for n in (self._num_queries, self._num_keys))

    @cached_property
    def runs(self) -> list[Run]:
        """A call for each piece of a document that lies in one of this rank's chunks."""
        pairs = zip(self._num_queries.tolist(), self._num_keys.tolist(), strict=True)
        return [Run(queries, keys, self._allowed(queries, keys)) for queries, keys in pairs]

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """query [s / size, b, heads, head_dim], key, value [s / size, b, kv_heads, head_dim] -> [s / size, b, -1]."""
        return self.attend_to(query, _gather(torch.stack((key, value), dim=2)))

    def attend_to(self, query: torch.Tensor, gathered: torch.Tensor) -> torch.Tensor:
        """`gathered` [s, b, 2, kv_heads, head_dim]: keys and values, the ranks' shares one after another."""
        length, count = query.shape[:2]
        k, v = gathered.flatten(0, 1).index_select(0, self._key_rows).unbind(1)
        out = attend_rows(query.transpose(0, 1).flatten(0, 1), k, v, self)
        return out.view(count, length, -1).transpose(0, 1)

    @cached_property
    def _key_rows(self) -> torch.Tensor:
        """Rows of what is gathered ([s, b] laid flat) that the pieces of queries see, piece after piece."""
        first = np.repeat(self._key_starts - (np.cumsum(self._num_keys) - self._num_keys), self._num_keys)
        sample, position = np.divmod(first + np.arange(self._num_keys.sum()), self._length)
        rows = self._share.rows(position, self._length) * self._num_samples + sample
        return torch.from_numpy(rows).to(self._device)

    def _cut(self, ends: _Places, length: int) -> tuple[_Places, _Places, _Places]:
        """(first query, last query + 1, first key) of each piece, as tokens of the samples laid end to end."""
        chunk_length = length // (2 * self._share.size)
        pieces = []
        for sample in range(int(ends[-1]) // length):
            for chunk in self._share.chunks:
                start = sample * length + chunk * chunk_length
                stop = start + chunk_length
                first = int(np.searchsorted(ends, start, "right")) - 1
                last = int(np.searchsorted(ends, stop, "left"))
                starts, stops = ends[first:last], ends[first + 1 : last + 1]
                pieces.append(np.stack([np.maximum(starts, start), np.minimum(stops, stop), starts]))
        begin, end, keys = np.concatenate(pieces, axis=1)
        return begin, end, keys

    def _allowed(self, num_queries: int, num_keys: int) -> torch.Tensor | None:
        if num_queries == num_keys:
            return None
        square = torch.ones(num_queries, num_keys, dtype=torch.bool, device=self._device)
        return square.tril(num_keys - num_queries)


def _gather(x: torch.Tensor) -> torch.Tensor:
    """x [n, ...] of all ranks of the context parallel group, one after another; gradients are summed back."""
    from megatron.core import parallel_state  # imported already by the engine, whose groups these are
    from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region

    gathered: torch.Tensor = gather_from_sequence_parallel_region(x, group=parallel_state.get_context_parallel_group())
    return gathered


def _cumulative(lengths: _Places) -> NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
