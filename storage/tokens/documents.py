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
_MAPPED_CHUNKS = 64
Offsets = NDArray[np.uint64]


class DocumentIndex:
    """Places of the first tokens of all documents, ascending; the first is 0."""

    def __init__(self, store: Path, info: StoreInfo) -> None:
        self.documents = info.documents
        self._chunk, self._folder = info.document_chunk, store / DOCUMENTS / "c"
        self._load = lru_cache(maxsize=_MAPPED_CHUNKS)(self._map)
        self._first = lru_cache(maxsize=None)(lambda number: int(self._load(number)[0]))
        self._good: set[int] = set()  # chunks whose crc32c was checked

    def within(self, start: int, stop: int) -> NDArray[np.int64]:
        """Document beginnings in start..stop-1, int64."""
        parts = []
        for number in range(self._chunk_of(start), self._chunk_of(stop - 1) + 1):
            starts = self._load(number)
            low, high = np.searchsorted(starts, np.array([start, stop], np.uint64))
            parts.append(starts[low:high].astype(np.int64))
        return np.concatenate(parts)

    def marks(self, starts: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
        """Where documents begin in tokens starts[i]..starts[i]+width-1, bool [len(starts), width]."""
        result = np.zeros((len(starts), width), bool)
        firsts = np.array([self._chunk_of(start) for start in starts.tolist()], np.int64)
        lasts = np.array([self._chunk_of(start + width - 1) for start in starts.tolist()], np.int64)
        pairs = zip(firsts.tolist(), lasts.tolist(), strict=True)
        for number in sorted({chunk for first, last in pairs for chunk in range(first, last + 1)}):
            rows = np.flatnonzero((firsts <= number) & (lasts >= number))
            _mark(result, rows, starts[rows], self._load(number))
        return result

    def document_at(self, token: int) -> int:
        """Number of the document that holds a token."""
        chunk = self._chunk_of(token)
        return chunk * self._chunk + int(np.searchsorted(self._load(chunk), np.uint64(token), "right")) - 1

    def start_of(self, document: int) -> int:
        """Place of a document's first token."""
        chunk, number = divmod(document, self._chunk)
        return int(self._load(chunk)[number])

    def _chunk_of(self, token: int) -> int:
        """Number of the chunk file that holds the last document beginning at or before a token."""
        low, high = 0, self.num_chunks
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._first(middle) <= token else (low, middle)
        return low

    def chunk(self, number: int) -> NDArray[np.uint64]:
        """All offsets of one chunk file. Raises FoundBad naming it if it fails its crc32c."""
        return self._load(number)

    @property
    def num_chunks(self) -> int:
        return -(-self.documents // self._chunk)

    def file(self, number: int) -> Path:
        """Path of one chunk file."""
        return self._folder / str(number)

    def _map(self, number: int) -> NDArray[np.uint64]:
        path = self.file(number)
        if not self._has_grown(number):
            check_size(path, self._chunk * _OFFSET_BYTES + CRC_BYTES)
        data = map_file(path)
        if number not in self._good and crc32c(data[:-CRC_BYTES]) != data[-CRC_BYTES:].tobytes():
            raise FoundBad(str(path), "fails its crc32c", REMEDY)
        self._good.add(number)
        used = min(self._chunk, self.documents - number * self._chunk)
        return data[:-CRC_BYTES].view("<u8")[:used]

    def _has_grown(self, number: int) -> bool:
        """Whether a later generation made a longer chunk of the only one: ours is the first part of it."""
        size_bytes, path = self._chunk * _OFFSET_BYTES + CRC_BYTES, self.file(number)
        if self.num_chunks > 1 or not path.exists():
            return False
        size = path.stat().st_size
        return size > size_bytes and size % _OFFSET_BYTES == CRC_BYTES


def _mark(result: NDArray[np.bool_], rows: NDArray[np.int64], starts: NDArray[np.int64], documents: Offsets) -> None:
    """Mark the documents of one chunk in some rows, all rows at once."""
    bounds = starts.astype(np.uint64)
    low = np.searchsorted(documents, bounds)
    counts = np.searchsorted(documents, bounds + np.uint64(result.shape[1])) - low
    row = np.repeat(np.arange(len(rows)), counts)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    result[rows[row], documents[low[row] + nth].astype(np.int64) - starts[row]] = True


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
