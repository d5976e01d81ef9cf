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

    def __init__(self, path: Location, info: StoreInfo, index: DocumentIndex, fill: _Fill, peek: _Fill) -> None:
        """`fill` reads tokens, as ShardMap.fill does; `peek` too, but need not look at their checksums."""
        self._path, self._info, self._index, self._fill, self._peek = path, info, index, fill, peek
        self._known = np.zeros(info.num_shards, bool)
        self.all_known = False
        """Whether there is nothing left to be checked."""

    def check(self, starts: Numbers, lengths: Numbers | int) -> None:
        """Before lengths[i] tokens from starts[i] on are read. Raises FoundBad naming a shard that is another's."""
        if self.all_known:
            return
        shard_tokens, last = self._info.shard_tokens, self._info.num_shards - 1
        firsts = np.clip(starts // shard_tokens, 0, last)  # what is not within the store is told by who reads it
        ends = np.clip((starts + lengths - 1) // shard_tokens, 0, last)
        if self._known[firsts].all() and self._known[ends].all():
            return
        unknown: dict[int, int] = {}  # shard -> token near which it is looked at
        for start, first, stop in zip(starts.tolist(), firsts.tolist(), (ends + 1).tolist(), strict=True):
            for shard in range(first, stop):
                if not self._known[shard]:
                    unknown.setdefault(shard, max(start, shard * shard_tokens))
        shards = np.array(list(unknown))
        self._check_shards(shards, np.array(list(unknown.values())))
        self._known[shards] = True
        self.all_known = bool(self._known.all())

    def _check_shards(self, shards: Numbers, near: Numbers) -> None:
        """Tokens before documents that begin in them must be the one that ends documents."""
        ends, good = self._ends(shards, near)
        few = np.flatnonzero(good.sum(axis=1) < _FEW)
        if len(few):
            ends[few], good[few] = self._ends(shards[few], shards[few] * self._info.shard_tokens)
        # Those of one chunk, if they are enough, which is the chunk that is read anyway; of documents longer than a
        # chunk four, in as many chunks.
        chunks = ends // self._info.chunk_tokens
        places = ends[good & (chunks <= chunks[:, _FEW - 1 : _FEW])]
        if not len(places):
            return  # one document is longer than each of the shards
        wanted = Wanted(places, 1, np.arange(len(places)), np.ones(len(places), np.int64))
        out = np.empty((1, len(places)), self._info.numpy_dtype)
        self._peek(wanted, out)
        wrong = np.flatnonzero(out[0] != self._info.end_of_document)
        if len(wrong):
            self._fill(wanted, out)  # if it is damaged, that is said
            shard = int(places[wrong[0]]) // self._info.shard_tokens
            problem = "documents do not end in it where the index says: it seems to be another shard's file"
            raise FoundBad(str(self._path / "c" / str(shard)), problem, REMEDY)

    def _ends(self, shards: Numbers, near: Numbers) -> tuple[Numbers, NDArray[np.bool_]]:
        """Tokens after which the next documents after `near` begin, int64 [n, _ENDS]; and which are in the shard."""
        begins = self._index.following(near, _ENDS)
        stops = np.minimum((shards + 1) * self._info.shard_tokens, self._info.tokens)
        return begins - 1, begins < stops[:, None]
