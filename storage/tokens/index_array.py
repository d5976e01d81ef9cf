"""A one-dimensional Zarr array of uint64 in plain shards: chunks are read, and their crc32c checked, when needed."""

import json
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from ...config.errors import FoundBad
from .geometry import Geometry
from .locations import Location
from .object_shards import ObjectShards
from .objects import ObjectPath
from .shard_map import ShardMap
from .shard_reads import ShardReads
from .shards import REMEDY, BadChunk
from .store import METADATA
from .wanted import Wanted

_KEPT_CHUNKS = 64
_MAX_OPEN = 64
Values = NDArray[np.uint64]


class IndexArray:
    """An index array, open for reading; nothing is read before the first value is asked for."""

    def __init__(self, folder: Location, length: int, max_mapped: int = 0) -> None:
        """The first `length` values of it; there may be more.

        At most `max_mapped` shards are mapped at a time; they are read plainly if that is 0.
        """
        self._folder, self.length, self._max_mapped = folder, length, max_mapped
        self.chunk = lru_cache(maxsize=_KEPT_CHUNKS)(self._read_chunk)
        """Values of one chunk, by its number."""

    @property
    def num_chunks(self) -> int:
        return self.geometry.num_chunks

    @cached_property
    def geometry(self) -> Geometry:
        """As zarr.json has it. Raises FoundBad naming it."""
        path = self._folder / METADATA
        try:
            record = json.loads(path.read_bytes())
            shard = record["chunk_grid"]["configuration"]["chunk_shape"][0]
            chunk = record["codecs"][0]["configuration"]["chunk_shape"][0]
            good = record["shape"][0] >= self.length and 0 < chunk <= shard and shard % chunk == 0
        except FileNotFoundError:
            raise FoundBad(str(path), "missing", REMEDY) from None
        except (ValueError, LookupError, TypeError):
            good = False
        if not good:
            raise FoundBad(str(path), "not that of an index", REMEDY)
        return Geometry(self.length, np.dtype(np.uint64), chunk, shard)

    def file(self, number: int) -> Location:
        """The shard that a chunk is in."""
        return self._folder / "c" / str(number // self.geometry.chunks_per_shard)

    def get(self, first: int, stop: int) -> Values:
        """Values first..stop-1, uint64. Raises FoundBad naming the shard that is missing or damaged."""
        return self._fill(Wanted(np.array([first]), 1), stop - first) if stop > first else np.empty(0, np.uint64)

    def get_pieces(self, firsts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Values:
        """lengths[i] values (at least one) from firsts[i] on, one after another, uint64. Raises as `get`."""
        if not len(firsts):
            return np.empty(0, np.uint64)
        places = np.cumsum(lengths) - lengths
        return self._fill(Wanted(firsts, 1, places, lengths), int(lengths.sum()))

    def bounds(self, values: NDArray[np.int64], ceiling: int) -> NDArray[np.int64] | None:
        """Number of the first value that is not below each of `values`, if the array is mapped; its values ascend and
        are below `ceiling`. Raises as `get`."""
        if not isinstance(self._shards, ShardMap):
            return None
        try:
            return self._shards.bounds(values, ceiling)
        except BadChunk as error:
            raise _of_index(error) from None

    def close(self) -> None:
        """Give back files and maps."""
        if "_shards" in self.__dict__:
            self._shards.close()

    @cached_property
    def _shards(self) -> ShardMap | ShardReads | ObjectShards:
        if isinstance(self._folder, ObjectPath):
            return ObjectShards(self._folder, self.geometry, "none", _KEPT_CHUNKS)
        if self._max_mapped:
            return ShardMap(self._folder, self.geometry, self._max_mapped)
        return ShardReads(self._folder, self.geometry, _MAX_OPEN)

    def _read_chunk(self, number: int) -> Values:
        length = self.geometry.chunk
        return self.get(number * length, min((number + 1) * length, self.length))

    def _fill(self, wanted: Wanted, length: int) -> Values:
        out: Values = np.empty(length, np.uint64)
        try:
            self._shards.fill(wanted, out[None])
        except BadChunk as error:
            raise _of_index(error) from None
        return out


def _of_index(error: BadChunk) -> FoundBad:
    """A bad chunk is one of tokens to who catches it; this is none."""
    return FoundBad(error.where, error.problem, error.remedy)
