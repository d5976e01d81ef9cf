"""Writes a one-dimensional Zarr array of uint64 as plain shards of small chunks; index_array.py reads it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..durable import write_durably
from .shards import ABSENT, crc32c, encode_chunk
from .store import METADATA, write_index_info

# A sample in a random order needs a chunk or two of the index of documents; of 10^12 tokens, 700 to a document, it has
# 1,363 shards.
INDEX_CHUNK = 1 << 12
INDEX_SHARD = 1 << 20


class IndexWriter:
    """Writes values as they come, a shard at a time."""

    def __init__(self, folder: Path, skip: int = 0) -> None:
        """`skip` shards of INDEX_SHARD values are there already, and are not written."""
        self.length = skip * INDEX_SHARD
        self.files: list[str] = []
        """What was written, by path in the folder."""
        self._folder, self._next = folder, skip
        (folder / "c").mkdir(parents=True, exist_ok=True)
        self._waiting: list[NDArray[np.uint64]] = []
        self._count = 0

    def append(self, values: NDArray[np.uint64]) -> None:
        """Add the next values, uint64."""
        self.length += len(values)
        self._waiting.append(values)
        self._count += len(values)
        if self._count >= INDEX_SHARD:
            self._write_shards(INDEX_SHARD)

    def finish(self) -> None:
        """Write what is left, and the array's zarr.json."""
        self._write_shards(1)
        write_index_info(self._folder, self.length, INDEX_CHUNK, INDEX_SHARD)
        self.files.append(METADATA)

    def _write_shards(self, least: int) -> None:
        """Shards of what waits, as long as there are `least` values."""
        values = np.concatenate(self._waiting) if self._waiting else np.empty(0, np.uint64)
        while len(values) >= least:
            self._write_shard(values[:INDEX_SHARD])
            values = values[INDEX_SHARD:]
        self._waiting, self._count = [values], len(values)

    def _write_shard(self, values: NDArray[np.uint64]) -> None:
        starts = range(0, len(values), INDEX_CHUNK)
        chunks = [encode_chunk(values[start : start + INDEX_CHUNK], INDEX_CHUNK, "none") for start in starts]
        index: NDArray[np.uint64] = np.full((INDEX_SHARD // INDEX_CHUNK, 2), ABSENT, "<u8")
        index[: len(chunks), 1] = len(chunks[0])
        index[: len(chunks), 0] = np.arange(len(chunks)) * len(chunks[0])
        end = index.tobytes()
        name = f"c/{self._next}"
        self._next += 1
        write_durably(self._folder / name, b"".join([*chunks, end, crc32c(end)]))
        self.files.append(name)
