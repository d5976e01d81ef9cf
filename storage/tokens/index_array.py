"""A one-dimensional Zarr array of uint64 in chunk files with a crc32c each: mapped, checked when first used."""

import mmap
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...config.errors import FoundBad
from ..durable import write_durably
from .shards import CRC_BYTES, REMEDY, crc32c, fill_value
from .store import METADATA, write_index_info

INDEX_CHUNK = 1 << 20
_VALUE_BYTES = 8
_MAPPED_CHUNKS = 64
Values = NDArray[np.uint64]


class IndexArray:
    """An index array, open for reading."""

    def __init__(self, folder: Path, length: int, chunk: int) -> None:
        """`length` values, `chunk` of them in a file; the last file is padded."""
        self.length, self._chunk, self._folder = length, chunk, folder / "c"
        self.chunk = lru_cache(maxsize=_MAPPED_CHUNKS)(self._map)
        self._good: set[int] = set()  # chunks whose crc32c was checked

    @property
    def num_chunks(self) -> int:
        return -(-self.length // self._chunk)

    def file(self, number: int) -> Path:
        """Path of one chunk file."""
        return self._folder / str(number)

    def get(self, first: int, stop: int) -> Values:
        """Values first..stop-1. Raises FoundBad naming the chunk file that is missing or damaged."""
        parts = []
        for number in range(first // self._chunk, -(-stop // self._chunk)):
            base = number * self._chunk
            parts.append(self.chunk(number)[max(0, first - base) : stop - base])
        return np.concatenate(parts) if parts else np.empty(0, np.uint64)

    def _map(self, number: int) -> Values:
        """Values of one chunk file. Raises FoundBad naming it if it is missing or damaged."""
        path = self.file(number)
        if not self._has_grown(number):
            check_size(path, self._chunk * _VALUE_BYTES + CRC_BYTES)
        data = map_file(path)
        if number not in self._good and crc32c(data[:-CRC_BYTES]) != data[-CRC_BYTES:].tobytes():
            raise FoundBad(str(path), "fails its crc32c", REMEDY)
        self._good.add(number)
        return data[:-CRC_BYTES].view("<u8")[: min(self._chunk, self.length - number * self._chunk)]

    def _has_grown(self, number: int) -> bool:
        """Whether a later generation made a longer chunk of the only one: ours is the first part of it."""
        size_bytes, path = self._chunk * _VALUE_BYTES + CRC_BYTES, self.file(number)
        if self.num_chunks > 1 or not path.exists():
            return False
        size = path.stat().st_size
        return size > size_bytes and size % _VALUE_BYTES == CRC_BYTES


def write_index(folder: Path, values: Values) -> tuple[int, list[str]]:
    """Write an array with its zarr.json into a new folder; values per file, and the files' paths in it."""
    (folder / "c").mkdir(parents=True)
    chunk = max(1, min(len(values), INDEX_CHUNK))
    files = []
    for number in range(-(-len(values) // chunk)):
        part: Values = np.full(chunk, fill_value(np.dtype(np.uint64)), "<u8")
        now = values[number * chunk : (number + 1) * chunk]
        part[: len(now)] = now
        data = part.tobytes()
        write_durably(folder / "c" / str(number), data + crc32c(data))
        files.append(f"c/{number}")
    write_index_info(folder, len(values), chunk)
    return chunk, [*files, METADATA]


def check_size(path: Path, size_bytes: int) -> None:
    """Raises FoundBad naming the file unless it is there and as long as it should be."""
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise FoundBad(str(path), "missing", REMEDY) from None
    if size != size_bytes:
        kind = "truncated" if size < size_bytes else "too long"
        raise FoundBad(str(path), f"{kind} ({size} bytes instead of {size_bytes})", REMEDY)


def map_file(path: Path) -> NDArray[np.uint8]:
    """Bytes of a file, mapped, read-only."""
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ), np.uint8)
