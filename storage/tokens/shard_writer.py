"""Writes one shard file beside its place: inner chunks as they come, then the index of where each lies."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .shards import ABSENT, Bytes, crc32c
from .streamed_file import StreamedFile


class ShardWriter:
    """Writes one shard file and renames it into its place; the only writer of that file."""

    def __init__(self, path: Path, num_chunks: int) -> None:
        self.path = path
        self._beside = path.with_name(f".{path.name}.tmp")
        self._file = StreamedFile(self._beside)
        self._index: NDArray[Any] = np.full((num_chunks, 2), ABSENT, "<u8")
        self._next = 0

    def room(self, size: int) -> Bytes:
        """As StreamedFile.room."""
        return self._file.room(size)

    def wrote(self, count: int, size: int) -> None:
        """`count` encoded inner chunks of `size` bytes each were put where room said. Raises OSError."""
        chunks = slice(self._next, self._next + count)
        self._index[chunks, 0] = self._file.size + size * np.arange(count)
        self._index[chunks, 1] = size
        self._next += count
        self._file.wrote(count * size)

    def append(self, chunk: bytes) -> None:
        """Add one encoded inner chunk. Raises OSError, of an earlier one too."""
        self._index[self._next] = self._file.size, len(chunk)
        self._next += 1
        self._file.append(chunk)

    def publish(self) -> tuple[int, str]:
        """Write the index, make it durable, rename it into place; size in bytes and digest."""
        index = self._index.tobytes()
        self._file.append(index + crc32c(index))
        digest = self._file.finish()
        self._beside.rename(self.path)
        return self._file.size, digest

    def close(self) -> None:
        """Close the file, published or not."""
        self._file.close()
