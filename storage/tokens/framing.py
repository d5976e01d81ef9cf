"""From tokens to the bytes of inner chunks: in one compiled pass that counts every token id too, else in NumPy."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .shards import CRC_BYTES, Bytes, Tokens, encode_chunk

_PIECE_BYTES = 4 << 20
_BUFFERS = 4  # one is being filled, one is being written, one waits for it; and one to spare

Piece = tuple[memoryview, list[int]]
"""Encoded inner chunks one after another, and the size of each in bytes."""
Frame = Callable[[NDArray[Any], int, int, Bytes, NDArray[np.int64]], bool]


@dataclass(frozen=True)
class ShardShape:
    """What all shards of a store share."""

    dtype: str
    vocab_size: int
    chunk_tokens: int
    shard_tokens: int
    compression: str


class Framing:
    """Frames the tokens of one shard."""

    def __init__(self, shape: ShardShape) -> None:
        self._shape = shape
        self.counts: NDArray[np.int64] = np.zeros(shape.vocab_size, np.int64)
        """How often each token id was seen; all together the tokens of the shard."""

    def pieces(self, blocks: Iterable[Tokens]) -> Iterator[Piece]:
        """Encode blocks (1-D, the store's dtype) of any length; the last chunk is padded.

        A piece is good until two more are asked for. Raises ValueError for an id that is not in the vocabulary.
        """
        whole, frame = _whole_chunks(blocks, self._shape), _frame_function()
        if frame is None or self._shape.compression != "none":
            for tokens in whole:
                yield from self._encoded(tokens)
        else:
            yield from self._framed(whole, frame)

    def _encoded(self, tokens: Tokens) -> Iterator[Piece]:
        length = self._shape.chunk_tokens
        for start in range(0, len(tokens), length):
            chunk = tokens[start : start + length]
            if int(chunk.max()) >= len(self.counts):
                raise self._outside(chunk)
            self.counts += np.bincount(chunk, minlength=len(self.counts))
            data = encode_chunk(chunk, length, self._shape.compression)
            yield memoryview(data), [len(data)]

    def _framed(self, whole: Iterable[Tokens], frame: Frame) -> Iterator[Piece]:
        length, itemsize = self._shape.chunk_tokens, np.dtype(self._shape.dtype).itemsize
        stride = length * itemsize + CRC_BYTES
        room = max(1, _PIECE_BYTES // stride)
        buffers, turn, used = [np.empty(room * stride, np.uint8) for _ in range(_BUFFERS)], 0, 0
        for tokens in whole:
            if len(tokens) % length:  # the last
                if used:
                    yield buffers[turn][: used * stride].data, [stride] * used
                yield from self._encoded(tokens)
                return
            while len(tokens):
                now, tokens = tokens[: (room - used) * length], tokens[(room - used) * length :]
                if not frame(np.ascontiguousarray(now), itemsize, length, buffers[turn][used * stride :], self.counts):
                    raise self._outside(now)
                used += len(now) // length
                if used == room:
                    yield buffers[turn].data, [stride] * used
                    turn, used = (turn + 1) % _BUFFERS, 0
        if used:
            yield buffers[turn][: used * stride].data, [stride] * used

    def _outside(self, tokens: Tokens) -> ValueError:
        return ValueError(f"token id {int(tokens.max())} in a vocabulary of {self._shape.vocab_size}")


def _frame_function() -> Frame | None:
    try:
        from ._frame import frame
    except ImportError:  # no compiler when this was installed
        return None
    found: Frame = frame
    return found


def _whole_chunks(blocks: Iterable[Tokens], shape: ShardShape) -> Iterator[Tokens]:
    """The blocks' tokens in arrays of whole chunks; a last one is shorter than a chunk, if tokens are left."""
    length = shape.chunk_tokens
    begun: Tokens = np.empty(length, shape.dtype)
    filled = 0
    for block in blocks:
        if filled:
            now, block = block[: length - filled], block[length - filled :]
            begun[filled : filled + len(now)] = now
            filled += len(now)
            if filled == length:
                yield begun
                filled = 0
        whole = len(block) // length * length
        if whole:
            yield block[:whole]
        rest = block[whole:]
        if len(rest):  # then no chunk is begun
            begun[: len(rest)] = rest
            filled = len(rest)
    if filled:
        yield begun[:filled]
