"""Where documents begin in a token store: the document index, mapped, its chunks checked when first used."""

import mmap
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...config.errors import FoundBad
from .shards import CRC_BYTES, REMEDY, crc32c
from .store import DOCUMENTS, StoreInfo

_OFFSET_BYTES = 8


class DocumentIndex:
    """Places of the first tokens of all documents, ascending; the first is 0."""

    def __init__(self, store: Path, info: StoreInfo) -> None:
        """Raises FoundBad naming a chunk file that is missing or has the wrong size."""
        self.documents = info.documents
        self._chunk = info.document_chunk
        self._files = [store / DOCUMENTS / "c" / str(number) for number in range(-(-info.documents // self._chunk))]
        for file in self._files:
            check_size(file, self._chunk * _OFFSET_BYTES + CRC_BYTES)
        self._first = np.array([self._peek(file) for file in self._files], np.int64)
        self._load = lru_cache(maxsize=64)(self._map)

    def within(self, start: int, stop: int) -> NDArray[np.int64]:
        """Document beginnings in start..stop-1, int64."""
        first = max(0, int(np.searchsorted(self._first, start, "right")) - 1)
        last = max(first + 1, int(np.searchsorted(self._first, stop, "left")))
        parts = []
        for number in range(first, last):
            starts = self._load(number)
            low, high = np.searchsorted(starts, np.array([start, stop], np.uint64))
            parts.append(starts[low:high].astype(np.int64))
        return np.concatenate(parts)

    def chunk(self, number: int) -> NDArray[np.uint64]:
        """All offsets of one chunk file. Raises FoundBad naming it if it fails its crc32c."""
        return self._load(number)

    @property
    def num_chunks(self) -> int:
        return len(self._files)

    def file(self, number: int) -> Path:
        """Path of one chunk file."""
        return self._files[number]

    def _map(self, number: int) -> NDArray[np.uint64]:
        path = self._files[number]
        data = map_file(path)
        if crc32c(data[:-CRC_BYTES]) != data[-CRC_BYTES:].tobytes():
            raise FoundBad(str(path), "fails its crc32c", REMEDY)
        used = min(self._chunk, self.documents - number * self._chunk)
        return data[:-CRC_BYTES].view("<u8")[:used]

    def _peek(self, path: Path) -> int:
        with path.open("rb") as file:
            return min(int.from_bytes(file.read(_OFFSET_BYTES), "little"), (1 << 63) - 1)


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
