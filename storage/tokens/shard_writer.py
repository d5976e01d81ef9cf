"""Writes one shard file beside its place: digest and disk are the business of a thread, framing is the caller's."""

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .shards import ABSENT, crc32c


class ShardWriter:
    """Writes one shard file and renames it into its place; the only writer of that file.

    A thread digests and writes what is appended, at most two pieces behind the caller, who frames the next meanwhile.
    """

    def __init__(self, path: Path, num_chunks: int) -> None:
        self.path = path
        self._beside = path.with_name(f".{path.name}.tmp")
        self._file = self._beside.open("wb", buffering=0)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write-shard")
        self._waiting: list[Future[None]] = []
        self._index: NDArray[Any] = np.full((num_chunks, 2), ABSENT, "<u8")
        self._next = self._offset = 0
        self._digest = hashlib.sha256()

    def append(self, data: memoryview, sizes: list[int]) -> None:
        """Add encoded inner chunks of these sizes in bytes; `data` stays as it is until two more appends are done.

        Raises OSError of an earlier piece too.
        """
        stops = np.cumsum(sizes, dtype=np.int64)
        chunks = slice(self._next, self._next + len(sizes))
        self._index[chunks, 0], self._index[chunks, 1] = self._offset + stops - sizes, sizes
        self._next += len(sizes)
        self._hand_over(data)

    def publish(self) -> tuple[int, str]:
        """Write the index, make it durable, rename it into place; size in bytes and SHA-256."""
        index = self._index.tobytes()
        self._hand_over(memoryview(index + crc32c(index)))
        while self._waiting:
            self._waiting.pop(0).result()
        os.fsync(self._file.fileno())
        self._file.close()
        self._beside.rename(self.path)
        return self._offset, self._digest.hexdigest()

    def close(self) -> None:
        """Close the file, published or not."""
        self._thread.shutdown(cancel_futures=True)
        self._file.close()

    def _hand_over(self, data: memoryview) -> None:
        while len(self._waiting) > 1:
            self._waiting.pop(0).result()
        self._waiting.append(self._thread.submit(self._write, data))
        self._offset += len(data)

    def _write(self, data: memoryview) -> None:
        left = data
        while left:
            left = left[self._file.write(left) :]
        self._digest.update(data)
