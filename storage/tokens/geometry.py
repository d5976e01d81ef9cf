"""How a one-dimensional Zarr array lies in files: inner chunks of one length, so many in a shard."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .shards import CRC_BYTES


@dataclass(frozen=True)
class Geometry:
    """Of an array of tokens, or of an index."""

    length: int
    """Items in all."""
    dtype: np.dtype[Any]
    chunk: int
    """Items of an inner chunk."""
    shard: int
    """Items of a shard; a multiple of those of a chunk."""

    @property
    def chunks_per_shard(self) -> int:
        return self.shard // self.chunk

    @property
    def num_shards(self) -> int:
        return -(-self.length // self.shard)

    @property
    def num_chunks(self) -> int:
        """Inner chunks in use, in all shards."""
        return -(-self.length // self.chunk)

    @property
    def stride(self) -> int:
        """Bytes of a plain inner chunk with its crc32c."""
        return self.chunk * self.dtype.itemsize + CRC_BYTES
