"""Megatron-LM's indexed datasets: token ids in NAME.bin, lengths and document boundaries in NAME.idx.

The index, little endian: `MMIDIDX\\0\\0`, version 1 (uint64), dtype code (uint8), numbers of sequences and of document
boundaries (uint64 each), the sequences' lengths (int32) and byte offsets (int64), the boundaries as sequence numbers
(int64, the first 0). Where a mode of each sequence (int8) follows, not all is text: such datasets are refused.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...tokens.tokenizer import StoreTokenizer
from .base import Ids, Piece, TokenInput, bad, cut, cuts_by_place, open_file

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}  # 6 and 7 are floating point
_BLOCK = 1 << 20
_TOGETHER = "give the .bin and .idx that were written together"


@dataclass(frozen=True)
class MegatronPair(TokenInput):
    """One .bin with its .idx, whose sizes and offsets were found to agree."""

    path: str
    """Path of the .bin."""
    dtype: np.dtype[Any]
    offsets: NDArray[np.int64]
    """Byte offset of each sequence, mapped, int64 [sequences]."""
    boundaries: NDArray[np.int64]
    """Sequence numbers at which documents begin, and of the end, mapped, int64 [documents + 1]."""
    num_bytes: int

    @property
    def size_bytes(self) -> int:
        return self.num_bytes

    def own_tokenizer(self) -> StoreTokenizer | None:
        return None

    def cuts(self, part_bytes: int) -> list[int]:
        return cuts_by_place(len(self.boundaries) - 1, self._place, part_bytes)

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        stop = len(self.boundaries) - 1 if stop is None else stop
        first, last = self._place(start), self._place(stop)
        ends = (end - first // self.dtype.itemsize for end in self._ends(start, stop))
        return cut(self._blocks(first, last), ends)

    def _place(self, document: int) -> int:
        """Byte at which a document begins, or the end of all."""
        sequence = int(self.boundaries[document])
        return int(self.offsets[sequence]) if sequence < len(self.offsets) else self.num_bytes

    def _blocks(self, first: int, last: int) -> Iterator[Ids]:
        with open_file(self.path) as file:
            file.seek(first)
            for start in range(first, last, _BLOCK):
                size = min(_BLOCK, last - start)
                data = file.read(size)
                if len(data) != size:
                    raise bad(self.path, f"byte {start + len(data)}: cut while it was read")
                yield np.frombuffer(data, self.dtype)

    def _ends(self, begin: int, end: int) -> Iterator[int]:
        """Places, in tokens, at which documents begin..end-1 end."""
        sequences = len(self.offsets)
        for start in range(begin + 1, end + 1, _BLOCK):
            numbers = self.boundaries[start : min(start + _BLOCK, end + 1)]
            ends = np.full(len(numbers), self.num_bytes)
            inside = numbers < sequences
            ends[inside] = self.offsets[numbers[inside]]
            yield from (ends // self.dtype.itemsize).tolist()


def open_megatron(path: str) -> MegatronPair:
    """Open the pair to which a .bin, an .idx or their common prefix belongs.

    Raises UserError naming the file that is missing, cut or damaged, or that belongs to another one.
    """
    prefix = stem(path)
    data, index = f"{prefix}.bin", f"{prefix}.idx"
    for file, other in ((data, index), (index, data)):
        if not os.path.isfile(file):
            raise bad(file, f"no such file, and {other} needs it", _TOGETHER)
    dtype, lengths, offsets, boundaries = _read_index(index)
    num_bytes = _check_offsets(index, dtype.itemsize, lengths, offsets)
    _check_boundaries(index, boundaries, len(lengths))
    size = os.stat(data).st_size
    if size != num_bytes:
        problem = f"byte {min(size, num_bytes)}: {size} bytes, but {index} describes {num_bytes}"
        raise bad(data, f"{problem}; the .bin is cut, or the .idx is of another one", _TOGETHER)
    return MegatronPair(data, dtype, offsets, boundaries, num_bytes)


def stem(path: str) -> str:
    """What a .bin and its .idx have in common."""
    return path[:-4] if path.endswith((".bin", ".idx")) else path


def _read_index(path: str) -> tuple[np.dtype[Any], NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    with open_file(path) as file:
        header = file.read(_HEADER.size)
    if not header.startswith(_MAGIC):
        raise bad(path, f"byte 0: begins with {header[:9]!r}, not {_MAGIC!r}", "give a Megatron index, version 1")
    if len(header) < _HEADER.size:
        raise bad(path, f"byte {len(header)}: cut in its header of {_HEADER.size} bytes")
    _, version, code, sequences, boundaries = _HEADER.unpack(header)
    if version != 1:
        raise bad(path, f"byte 9: version {version}, not 1", "give a Megatron index, version 1")
    if code not in _DTYPES:
        known = ", ".join(f"{code} ({np.dtype(name)})" for code, name in _DTYPES.items())
        raise bad(path, f"byte 17: dtype code {code} is not one of token ids: {known}", _TOGETHER)
    sizes = np.cumsum([_HEADER.size, 4 * sequences, 8 * sequences, 8 * boundaries], dtype=object)
    size = os.stat(path).st_size
    if size == sizes[-1] + sequences and sequences:
        raise bad(path, f"byte {sizes[-1]}: holds sequence modes, so not all is text", "give a dataset of text alone")
    if size != sizes[-1] or not boundaries:
        problem = f"byte {min(size, sizes[-1])}: {size} bytes, but its header means {sizes[-1]}"
        raise bad(path, problem if boundaries else "byte 26: no document boundaries", _TOGETHER)
    mapped = np.memmap(path, np.uint8, "r")
    parts = [mapped[start:stop] for start, stop in pairwise(sizes)]
    return np.dtype(_DTYPES[code]), parts[0].view("<i4"), parts[1].view("<i8"), parts[2].view("<i8")


def _check_offsets(path: str, itemsize: int, lengths: NDArray[np.int32], offsets: NDArray[np.int64]) -> int:
    """Sequences follow each other without gap; the bytes of all."""
    total = 0
    for start in range(0, len(lengths), _BLOCK):
        sizes = lengths[start : start + _BLOCK].astype(np.int64) * itemsize
        ends = total + np.cumsum(sizes)
        wrong = (sizes < 0) | (offsets[start : start + _BLOCK] != ends - sizes)
        if wrong.any():
            number = start + int(wrong.argmax())
            problem = (
                f"sequence {number}: length {lengths[number]} at byte {offsets[number]} does not fit its neighbours"
            )
            raise bad(path, problem)
        total = int(ends[-1])
    return total


def _check_boundaries(path: str, boundaries: NDArray[np.int64], sequences: int) -> None:
    """Document boundaries ascend from 0 to the number of sequences."""
    before = 0
    for start in range(0, len(boundaries), _BLOCK):
        part = boundaries[start : start + _BLOCK]
        wrong = np.diff(part, prepend=before) < 0
        if wrong.any() or (start == 0 and part[0] != 0):
            number = start + int(wrong.argmax())
            raise bad(path, f"document {number}: begins at sequence {boundaries[number]}, which is out of order")
        before = int(part[-1])
    if before != sequences:
        raise bad(path, f"document {len(boundaries) - 1}: ends at sequence {before} of {sequences}")
