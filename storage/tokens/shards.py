"""The bytes of one Zarr v3 shard of tokens: inner chunks, each with its crc32c, then the index with its own.

Zarr's `sharding_indexed` codec with the index at the end: per inner chunk its offset and size as two
little-endian uint64 (all ones where a chunk is absent), and a crc32c over these.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from ...config.errors import FoundBad
from .objects import ObjectPath

REMEDY = "restore the file from a copy, or build the store again"
ABSENT = (1 << 64) - 1
CRC_BYTES = 4
ZSTD_LEVEL = 3
TOP_TOKENS = 32  # so that every token of more than 1 in 33 is among them
SKETCH_BUCKETS = 64

Tokens = NDArray[np.uint16] | NDArray[np.uint32]
Bytes = NDArray[np.uint8]
Index = NDArray[np.uint64]
"""Offset and size in bytes of each inner chunk of a shard, [chunks, 2]."""


class BadChunk(FoundBad):
    """One inner chunk of a store is damaged; `chunk` is its number in the store, `path` its shard's."""

    def __init__(self, path: Path | ObjectPath, problem: str, chunk: int) -> None:
        super().__init__(str(path), problem, REMEDY)
        self.path, self.chunk = path, chunk


def crc32c(data: bytes | Bytes) -> bytes:
    """Little-endian crc32c of read-only bytes, as Zarr's crc32c codec appends it."""
    return int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")


def fill_value(dtype: np.dtype[Any]) -> int:
    """What pads the last inner chunk: the largest value, so that nobody takes it for a token of a small vocabulary."""
    return int(np.iinfo(dtype).max)


def encode_chunk(tokens: NDArray[Any], length: int, compression: str) -> bytes:
    """One inner chunk: tokens, or values of an index, padded to `length`, little endian, zstd if asked, the crc32c."""
    padded = np.full(length, fill_value(tokens.dtype), tokens.dtype.newbyteorder("<"))
    padded[: len(tokens)] = tokens
    data = padded.tobytes()
    if compression == "zstd":
        from numcodecs.zstd import compress

        data = bytes(compress(data, ZSTD_LEVEL))
    return data + crc32c(data)


def decode_chunk(data: Bytes, dtype: np.dtype[Any], compression: str) -> Tokens:
    """Tokens of one inner chunk without its crc32c; a view of `data` if it is plain."""
    if compression == "zstd":
        from numcodecs.zstd import decompress

        return np.frombuffer(decompress(np.ascontiguousarray(data)), dtype.newbyteorder("<"))
    return data.view(dtype.newbyteorder("<"))


@dataclass(frozen=True)
class ShardSummary:
    """What the store's attributes say of one shard."""

    file: str
    tokens: int
    size_bytes: int
    digest: str
    histogram: dict[str, Any]


def summarise(counts: NDArray[np.int64]) -> dict[str, Any]:
    """Summary of a histogram (int64 [vocabulary]): distinct ids, lowest, highest, the commonest, digest of all.

    `sketch` has the counts of ids i by i modulo 64: enough to see whether two texts are of one kind.
    """
    seen = np.flatnonzero(counts)
    top = seen[np.argsort(-counts[seen], kind="stable")[:TOP_TOKENS]]  # of equal counts the lower id first
    return {
        "distinct": len(seen),
        "min": int(seen[0]),
        "max": int(seen[-1]),
        "top": [[token, int(counts[token])] for token in top.tolist()],
        "sketch": np.bincount(seen % SKETCH_BUCKETS, counts[seen], SKETCH_BUCKETS).astype(np.int64).tolist(),
        "sha256": hashlib.sha256(counts.astype("<u8").tobytes()).hexdigest(),
    }
