"""Plain shards mapped into memory: a batch is one call of compiled code, which needs no interpreter lock."""

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config.errors import FoundBad
from .geometry import Geometry
from .shard_files import ShardFiles
from .shards import BadChunk
from .wanted import Numbers, Wanted

try:
    from . import _gather
except ImportError:  # nothing could be compiled; shards are read plainly
    _gather = None  # type: ignore[assignment]

_DONE, _NOT_MAPPED, _BAD_CRC = range(3)  # as mapped.h tells; what is left is that a page cannot be read
_LEAST_TOLD, _MOST_TOLD = 512, 8192
_Array = tuple[int, int, int, int, bool]  # items, bytes of one, items of a chunk, chunks of a shard, whether to check
_Function = Callable[..., tuple[int, int, int, int]]


def can_map() -> bool:
    """Whether the compiled part is there."""
    return _gather is not None


class ShardMap:
    """Gathers items out of mapped shards; each shard is mapped, and its index checked, when it is first touched."""

    def __init__(self, store: Path, geometry: Geometry, max_mapped: int, check: bool = True) -> None:
        """At most `max_mapped` shards are mapped at a time; beyond that those mapped first are let go.

        Without `check` the chunks' crc32c are not looked at.
        """
        self._files, self._geometry, self._max_mapped = ShardFiles(store, geometry), geometry, max_mapped
        self._array = (geometry.length, geometry.dtype.itemsize, geometry.chunk, geometry.chunks_per_shard, check)
        self._bases = np.zeros(geometry.num_shards, np.uint64)
        self._checked = np.zeros(-(-geometry.num_chunks // 8), np.uint8)
        self._mapped: deque[tuple[int, int, int]] = deque()  # shard, address, size
        self._told = self._still_told = _LEAST_TOLD  # calls of will_need, as that says
        self._lock = threading.Lock()  # no shard is let go while another thread reads it
        self._closer = weakref.finalize(self, _let_go, self._mapped)

    def fill(self, wanted: Wanted, out: NDArray[Any]) -> None:
        """Copy items into `out` [n, width], contiguous, of the array's dtype or wider (of tokens uint32 and int64).

        Raises FoundBad naming shard and chunk for what is damaged or cannot be read, ValueError for what is not within
        the store or `out`.
        """
        if self._run(_gather.gather, wanted, out, self._array):
            if not self._still_told:
                self._told = min(4 * self._told, _MOST_TOLD)
            self._still_told = self._told

    def peek(self, wanted: Wanted, out: NDArray[Any]) -> None:
        """As fill, without a look at the chunks' crc32c."""
        self._run(_gather.gather, wanted, out, (*self._array[:-1], False))

    def will_need(self, wanted: Wanted, out: NDArray[Any]) -> None:
        """Ask the system to read in the background what `fill` is soon called with.

        It costs half of what the batch does where all is in memory. So it is left out after 512 times in which no page
        had to be waited for, and done again from the first time on that one had to. Each time that it was wrong to
        leave it out, since what was told came in time, it is done for four times as long, up to 8,192 times.
        """
        if self._still_told:
            self._still_told -= 1
            self._run(_gather.announce, wanted, out, self._array)

    def bounds(self, values: Numbers, ceiling: int) -> Numbers:
        """Number of the first item that is not below each value, of an array of ascending uint64 below `ceiling`.

        Raises FoundBad as `fill` does.
        """
        out, row = np.empty_like(values), 0
        # One search looks at three chunks for each time that it halves where it looks, and at two shards at last.
        least = 3 * self._geometry.num_shards.bit_length() + 6
        with self._lock:
            while True:
                what = (self._bases, self._checked, values, out, ceiling, self._array, row)
                status, row, where = _gather.bounds(*what)
                if status == _DONE:
                    return out
                if status != _NOT_MAPPED:
                    raise self._bad(status, where)
                self._map(where, np.empty(0, np.int64), least)

    def close(self) -> None:
        """Let all shards go."""
        with self._lock:
            self._bases[:] = 0
            _let_go(self._mapped)

    def _run(self, function: _Function, wanted: Wanted, out: NDArray[Any], array: _Array) -> int:
        """Call gather or announce until it is through, mapping what it asks for; pages that had to be waited for."""
        sizes, row, faults = (wanted.step, out.shape[1], out.itemsize), 0, 0
        longest = out.shape[1] if wanted.lengths is None else int(wanted.lengths.max(initial=0))
        least = longest // self._geometry.shard + 2  # one sample may span many small shards
        what = (self._bases, self._checked, wanted.numbers, wanted.lengths, wanted.rows, out, sizes, array)
        with self._lock:
            while True:
                status, row, where, waited = function(*what, row)
                faults += waited
                if status == _DONE:
                    return faults
                if status != _NOT_MAPPED:
                    raise self._bad(status, where)
                self._map(where, self._shards_of(wanted, row, out.shape[1]), least)

    def _shards_of(self, wanted: Wanted, row: int, width: int) -> Numbers:
        """Shards of the rows from `row` on, in their order; only that row's if one has more than two."""
        starts = wanted.numbers[row:] * wanted.step
        lengths = width if wanted.lengths is None else wanted.lengths[row:]
        firsts, lasts = starts // self._geometry.shard, (starts + lengths - 1) // self._geometry.shard
        if (lasts - firsts).max() > 1:
            return np.arange(firsts[0], lasts[0] + 1)
        return np.stack([firsts, lasts], axis=1).reshape(-1)

    def _map(self, shard: int, shards: Numbers, least: int) -> None:
        """Map a shard, and as many of `shards` as there may be, which are read next; one row needs up to `least`."""
        # These must all stay until the row is done: so of the oldest maps fewer are let go than are there for others.
        limit = max(self._max_mapped, least)
        if len(self._mapped) >= limit:
            for old in _let_go(self._mapped, max(len(self._mapped) - limit + 1, (limit - least) // 16)):
                self._bases[old] = 0
        room, files = limit - len(self._mapped), self._files
        shards = np.append(shard, shards)  # the room may be for one only
        self._mapped.extend(_gather.map_shards(self._bases, files.known, shards, self._array, files.folder, room))
        if not self._bases[shard]:
            self._map_alone(shard)

    def _map_alone(self, shard: int) -> None:
        """Map a shard that is not simply as it should be, or say what is wrong with it."""
        descriptor, size = self._files.open_plain(shard)
        try:
            address = _gather.map_file(descriptor, size)
        except OSError as error:
            path = str(self._files.path(shard))
            raise FoundBad(path, f"cannot be mapped ({error.strerror})", "set data.read: plain") from None
        finally:
            os.close(descriptor)
        self._mapped.append((shard, address, size))
        self._bases[shard] = address

    def _bad(self, status: int, chunk: int) -> BadChunk:
        place = f"inner chunk {chunk % self._geometry.chunks_per_shard}"
        problem = f"{place} fails its crc32c" if status == _BAD_CRC else f"{place} cannot be read any more"
        return BadChunk(self._files.path_of_chunk(chunk), problem, chunk)


def _let_go(mapped: deque[tuple[int, int, int]], count: int | None = None) -> list[int]:
    """Undo the first `count` maps, or all; their shards."""
    shards: list[int] = []
    while mapped and (count is None or len(shards) < count):
        shard, address, size = mapped.popleft()
        shards.append(shard)
        _gather.unmap(address, size)
    return shards
