"""Plain shards read with pread: for file systems that do not like maps, and where nothing could be compiled."""

import os
import threading
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .geometry import Geometry
from .shard_files import ShardFiles, read_exactly
from .shards import CRC_BYTES, BadChunk, crc32c
from .wanted import Wanted

_MAX_OPEN = 256  # of the 1,024 descriptors that a process usually may have


class ShardReads:
    """Gathers tokens by reading them; as ShardMap, which see, but for how."""

    def __init__(self, folder: Path, geometry: Geometry, max_open: int = _MAX_OPEN, check: bool = True) -> None:
        self._files, self._geometry = ShardFiles(folder, geometry), geometry
        self._check, self._max_open = check, max_open
        self._checked = np.zeros(geometry.num_chunks, bool)
        self._open: OrderedDict[int, int] = OrderedDict()  # shard -> descriptor, the least recently used first
        self._lock = threading.Lock()
        self._closer = weakref.finalize(self, _close_all, self._open)

    def fill(self, wanted: Wanted, out: NDArray[Any]) -> None:
        """See ShardMap.fill."""
        flat = out.reshape(-1)
        with self._lock:
            for chunk, offset, to, count in wanted.by_chunk(out, self._geometry.length, self._geometry.chunk):
                flat[to : to + count] = self._tokens(chunk, offset, count)

    peek = fill

    def will_need(self, wanted: Wanted, out: NDArray[Any]) -> None:
        """Ask the system to read in the background what `fill` is soon called with, in ascending order."""
        geometry = self._geometry
        for start, _, length in sorted(wanted.each(out, geometry.length)):
            shard, offset = divmod(start, geometry.shard)
            with self._lock:
                place = offset // geometry.chunk * geometry.stride
                size = length * geometry.dtype.itemsize + 2 * geometry.stride
                os.posix_fadvise(self._descriptor(shard), place, size, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            _close_all(self._open)

    def _tokens(self, chunk: int, offset: int, count: int) -> NDArray[Any]:
        """Tokens offset..offset+count-1 of a chunk; all of it is read and checked the first time."""
        shard, number = divmod(chunk, self._geometry.chunks_per_shard)
        dtype = self._geometry.dtype.newbyteorder("<")
        path, place = str(self._files.path(shard)), number * self._geometry.stride
        descriptor = self._descriptor(shard)
        if not self._check or self._checked[chunk]:
            data = read_exactly(descriptor, count * dtype.itemsize, place + offset * dtype.itemsize, path)
            return np.frombuffer(data, dtype)
        data = read_exactly(descriptor, self._geometry.stride, place, path)
        if crc32c(data[:-CRC_BYTES]) != data[-CRC_BYTES:]:
            raise BadChunk(Path(path), f"inner chunk {number} fails its crc32c", chunk)
        self._checked[chunk] = True
        return np.frombuffer(data, dtype, count, offset * dtype.itemsize)

    def _descriptor(self, shard: int) -> int:
        descriptor = self._open.get(shard)
        if descriptor is None:
            while len(self._open) >= self._max_open:
                os.close(self._open.popitem(last=False)[1])
            descriptor = self._open[shard] = self._files.open_plain(shard)[0]
        self._open.move_to_end(shard)
        return descriptor


def _close_all(descriptors: OrderedDict[int, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])
