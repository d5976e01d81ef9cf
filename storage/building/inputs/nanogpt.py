"""Streams of token ids as nanoGPT, llm.c and modded-nanogpt write them: NAME.bin, documents parted by a token.

nanoGPT writes ids alone, uint16 (uint32 where the vocabulary is larger), and the end-of-document token after each
document. The others begin with 256 int32, of which the first three are a magic number, a version and the number of
tokens, and write the token before each document; a stream that begins with it is read so, whatever its header.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ...tokens.tokenizer import StoreTokenizer
from .base import Ids, Piece, TokenInput, bad, open_file

_HEADER_BYTES = 1024
_BLOCK = 1 << 20
_START = struct.Struct("<3i")
# Magic and version: bytes of an id.
_HEADERS = {(20240520, 1): 2, (20240801, 7): 4}
MAGICS = tuple(struct.pack("<i", magic) for magic, _ in _HEADERS)
_OTHER = "give the tokenizer that made the ids: --tokenizer"


@dataclass(frozen=True)
class NanoGptFile(TokenInput):
    """One .bin whose size was found to agree with its header."""

    path: str
    header_bytes: int
    itemsize: int
    """Bytes of an id; 0 where the vocabulary decides, which is not known yet."""
    num_bytes: int
    """Bytes of ids."""
    vocab_size: int = 0
    end_of_document: int = -1

    @property
    def size_bytes(self) -> int:
        return self.num_bytes

    def own_tokenizer(self) -> StoreTokenizer | None:
        return None

    def of_tokenizer(self, vocab_size: int, end_of_document: int) -> "NanoGptFile":
        """The file with what the tokenizer decides. Raises UserError if its size is not that of whole ids."""
        itemsize = self.itemsize or (2 if vocab_size <= 1 << 16 else 4)
        if self.num_bytes % itemsize:
            place = self.num_bytes // itemsize * itemsize
            problem = (
                f"byte {place}: {self.num_bytes - place} bytes are no whole id of {itemsize} bytes; cut or damaged"
            )
            raise bad(self.path, problem)
        return replace(self, itemsize=itemsize, vocab_size=vocab_size, end_of_document=end_of_document)

    def cuts(self, part_bytes: int) -> list[int]:
        """Tokens that begin a document."""
        count = self.num_bytes // self.itemsize
        cuts: list[int] = []
        for target in range(part_bytes // self.itemsize, count, part_bytes // self.itemsize):
            place = next((base + int(ends[0]) + 1 for base, ends in self._ends(target - 1, count) if len(ends)), count)
            if place < count and (not cuts or place > cuts[-1]):
                cuts.append(place)
        return cuts

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        """Documents between two tokens that begin one. Raises UserError naming the byte of what is no id."""
        stop = self.num_bytes // self.itemsize if stop is None else stop
        if start == 0 and any(int(block[0]) == self.end_of_document for _, block in self._blocks(0, min(1, stop))):
            start = 1
        open_piece = False
        for base, block in self._blocks(start, stop):
            self._check(base, block)
            done = 0
            for end in (np.flatnonzero(block == self.end_of_document) + 1).tolist():
                yield Piece(block[done:end], True, (end - done) * self.itemsize)
                done, open_piece = end, False
            if done < len(block):
                yield Piece(block[done:], False, (len(block) - done) * self.itemsize)
                open_piece = True
        if open_piece:
            yield Piece(np.empty(0, np.int64), True, 0)

    def _check(self, base: int, block: Ids) -> None:
        wrong = np.flatnonzero(block >= self.vocab_size)
        if len(wrong):
            place = self.header_bytes + (base + int(wrong[0])) * self.itemsize
            problem = f"byte {place}: token id {block[wrong[0]]} is not one of the tokenizer's {self.vocab_size}"
            raise bad(self.path, problem, _OTHER)

    def _ends(self, start: int, stop: int) -> Iterator[tuple[int, Ids]]:
        for base, block in self._blocks(start, stop):
            yield base, np.flatnonzero(block == self.end_of_document)

    def _blocks(self, start: int, stop: int) -> Iterator[tuple[int, Ids]]:
        """Blocks of ids start..stop-1, with the place of the first of each."""
        with open_file(self.path) as file:
            file.seek(self.header_bytes + start * self.itemsize)
            for base in range(start, stop, _BLOCK):
                size = min(_BLOCK, stop - base) * self.itemsize
                data = file.read(size)
                if len(data) != size:
                    place = self.header_bytes + base * self.itemsize + len(data)
                    raise bad(self.path, f"byte {place}: cut while it was read")
                yield base, np.frombuffer(data, f"<u{self.itemsize}")


def open_nanogpt(path: str) -> NanoGptFile:
    """Open a .bin, with a header if it begins with a magic number.

    Raises UserError naming the byte where the header is cut, of an unknown version, or of another number of tokens.
    """
    with open_file(path) as file:
        start = file.read(_START.size)
        size_bytes = file.seek(0, os.SEEK_END)
    if not start.startswith(MAGICS):
        if not size_bytes:
            raise bad(path, "byte 0: empty")
        return NanoGptFile(path, 0, 0, size_bytes)
    if size_bytes < _HEADER_BYTES:
        raise bad(path, f"byte {size_bytes}: cut in its header of {_HEADER_BYTES} bytes")
    magic, version, tokens = _START.unpack(start)
    itemsize = _HEADERS.get((magic, version))
    if itemsize is None:
        known = " or ".join(f"{known} of magic {number}" for number, known in _HEADERS)
        raise bad(path, f"byte 4: version {version} of magic {magic}, not {known}", "give a file of a known version")
    expected = _HEADER_BYTES + tokens * itemsize
    if size_bytes != expected:
        problem = f"byte {min(size_bytes, expected)}: {size_bytes} bytes, but its header means {expected}"
        raise bad(path, f"{problem} ({tokens} tokens); cut or damaged")
    return NanoGptFile(path, _HEADER_BYTES, itemsize, size_bytes - _HEADER_BYTES)
