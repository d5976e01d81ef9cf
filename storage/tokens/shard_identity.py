"""Whether a shard's file is that shard's: crc32c does not tell if two files were exchanged, documents' ends do."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...config.errors import FoundBad
from .documents import DocumentIndex
from .locations import Location
from .shards import REMEDY
from .store import StoreInfo
from .wanted import Numbers, Wanted

_ENDS = 16  # of documents of 4 tokens one in 4^16 other shards would pass
_FEW = 4


class _Fill(Protocol):
    def __call__(self, wanted: Wanted, out: NDArray[Any]) -> None: ...


class ShardIdentity:
    """Looks at each shard of a store once, when it is first read from."""

    def __init__(self, path: Location, info: StoreInfo, index: DocumentIndex, fill: _Fill) -> None:
        """`fill` reads tokens, as ShardMap.fill does."""
        self._path, self._info, self._index, self._fill = path, info, index, fill
        self._known = np.zeros(info.num_shards, bool)
        self._all_known = False

    def check(self, starts: Numbers, lengths: Numbers | int) -> None:
        """Before lengths[i] tokens from starts[i] on are read. Raises FoundBad naming a shard that is another's."""
        if self._all_known:
            return
        last = min(self._info.num_shards - 1, int((starts + lengths).max(initial=1) - 1) // self._info.shard_tokens)
        shards = np.clip(starts // self._info.shard_tokens, 0, last)
        ends = np.clip((starts + lengths - 1) // self._info.shard_tokens, 0, last)
        if self._known[shards].all() and self._known[ends].all():
            return
        unknown: dict[int, int] = {}  # shard -> token near which it is looked at
        for start, first, stop in zip(starts.tolist(), shards.tolist(), (ends + 1).tolist(), strict=True):
            for shard in range(first, stop):
                if not self._known[shard]:
                    unknown.setdefault(shard, start)
        self._check_shards(unknown)
        self._known[list(unknown)] = True
        self._all_known = bool(self._known.all())

    def _check_shards(self, unknown: dict[int, int]) -> None:
        """Tokens before documents that begin in them must be the one that ends documents."""
        places = [self._ends(shard, start) for shard, start in unknown.items()]
        ends = np.concatenate(places)
        if not len(ends):
            return
        out = np.empty((1, len(ends)), self._info.numpy_dtype)
        self._fill(Wanted(ends, 1, np.arange(len(ends)), np.ones(len(ends), np.int64)), out)
        wrong = np.flatnonzero(out[0] != self._info.end_of_document)
        if len(wrong):
            shard = int(ends[wrong[0]]) // self._info.shard_tokens
            problem = "documents do not end in it where the index says: it seems to be another shard's file"
            raise FoundBad(str(self._path / "c" / str(shard)), problem, REMEDY)

    def _ends(self, shard: int, start: int) -> NDArray[np.int64]:
        """Some tokens of a shard after which the next document begins: after `start` if there are some, and in one
        chunk if it has enough; none if one document is longer than a shard."""
        begin = shard * self._info.shard_tokens
        stop = min(begin + self._info.shard_tokens, self._info.tokens)
        ends = self._index.first_after(max(start, begin), stop, _ENDS) - 1
        if len(ends) < _FEW:
            ends = self._index.first_after(begin, stop, _ENDS) - 1
        close = ends[ends // self._info.chunk_tokens == ends[:1] // self._info.chunk_tokens]
        return close if len(close) >= _FEW else ends
