"""Plain shards mapped into memory: a batch is one call of compiled code, which needs no interpreter lock."""

import os
import threading
import weakref
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config.errors import FoundBad
from . import _gather
from .shard_files import ShardFiles
from .shards import BadChunk
from .store import StoreInfo
from .wanted import Wanted

_DONE, _NOT_MAPPED, _BAD_CRC = range(3)  # as gather.c tells; what is left is that a page cannot be read


class ShardMap:
    """Gathers tokens out of mapped shards; each shard is mapped, and its index checked, when it is first touched."""

    def __init__(self, store: Path, info: StoreInfo, max_mapped: int, check: bool = True) -> None:
        """At most `max_mapped` shards are mapped at a time; beyond that the one mapped first is let go.

        Without `check` the chunks' crc32c are not looked at.
        """
        self._files, self._info, self._max_mapped = ShardFiles(store, info.geometry), info, max_mapped
        itemsize = info.numpy_dtype.itemsize
        self._geometry = (info.tokens, itemsize, info.chunk_tokens, info.chunks_per_shard, check)
        self._bases = np.zeros(info.num_shards, np.uint64)
        self._checked = np.zeros(-(-info.num_chunks // 8), np.uint8)
        self._mapped: deque[tuple[int, int, int]] = deque()  # shard, address, size
        self._lock = threading.Lock()  # no shard is let go while another thread reads it
        self._closer = weakref.finalize(self, _let_go, self._mapped)

    def fill(self, wanted: Wanted, out: NDArray[Any]) -> None:
        """Copy tokens into `out` [n, width], contiguous, of the store's dtype, uint32 or int64.

        Raises FoundBad naming shard and chunk for what is damaged or cannot be read, ValueError for what is not within
        the store or `out`.
        """
        self._run(_gather.gather, wanted, out)

    def will_need(self, wanted: Wanted, out: NDArray[Any]) -> None:
        """Ask the system to read in the background what `fill` is soon called with."""
        self._run(_gather.announce, wanted, out)

    def close(self) -> None:
        """Let all shards go."""
        with self._lock:
            self._bases[:] = 0
            _let_go(self._mapped)

    def _run(self, function: Any, wanted: Wanted, out: NDArray[Any]) -> None:
        """Call gather or announce until it is through, mapping the shards that it asks for."""
        sizes, row = (wanted.step, out.shape[1], out.itemsize), 0
        what = (self._bases, self._checked, wanted.numbers, wanted.lengths, wanted.rows, out, sizes, self._geometry)
        with self._lock:
            while True:
                status, row, where = function(*what, row)
                if status == _DONE:
                    return
                if status != _NOT_MAPPED:
                    raise self._bad(status, where)
                self._map(where, out.shape[1])

    def _map(self, shard: int, width: int) -> None:
        # One sample may span many small shards: they must all stay until it is copied.
        limit = max(self._max_mapped, width // self._info.shard_tokens + 2)
        while len(self._mapped) >= limit:
            old, address, size = self._mapped.popleft()
            self._bases[old] = 0
            _gather.unmap(address, size)
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
        place = f"inner chunk {chunk % self._info.chunks_per_shard}"
        problem = f"{place} fails its crc32c" if status == _BAD_CRC else f"{place} cannot be read any more"
        return BadChunk(self._files.path_of_chunk(chunk), problem, chunk)


def _let_go(mapped: deque[tuple[int, int, int]]) -> None:
    while mapped:
        _, address, size = mapped.popleft()
        _gather.unmap(address, size)
