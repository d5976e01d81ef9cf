"""From tokens to the bytes of inner chunks: in one compiled pass that counts every token id too, else in NumPy."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .shard_writer import ShardWriter
from .shards import CRC_BYTES, Bytes, Tokens, encode_chunk

_FOLD_TOKENS = 1 << 30  # so many are counted in 32 bits, whose table stays in the processor's cache

Frame = Callable[[NDArray[Any], int, int, Bytes, NDArray[np.uint32]], bool]


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

    def write(self, blocks: Iterable[Tokens], writer: ShardWriter) -> None:
        """Encode blocks (1-D, the store's dtype) of any length; the last chunk is padded.

        Raises ValueError for an id that is not in the vocabulary, and OSError.
        """
        whole, frame = _whole_chunks(blocks, self._shape), _frame_function()
        if frame is None or self._shape.compression != "none":
            for tokens in whole:
                self._encode(tokens, writer)
        else:
            self._frame(whole, frame, writer)

    def _encode(self, tokens: Tokens, writer: ShardWriter) -> None:
        length = self._shape.chunk_tokens
        for start in range(0, len(tokens), length):
            chunk = tokens[start : start + length]
            if int(chunk.max()) >= len(self.counts):
                raise self._outside(chunk)
            self.counts += np.bincount(chunk, minlength=len(self.counts))
            writer.append(encode_chunk(chunk, length, self._shape.compression))

    def _frame(self, whole: Iterable[Tokens], frame: Frame, writer: ShardWriter) -> None:
        length, itemsize = self._shape.chunk_tokens, np.dtype(self._shape.dtype).itemsize
        stride = length * itemsize + CRC_BYTES
        recent, counted = np.zeros(len(self.counts), np.uint32), 0
        for tokens in whole:
            if len(tokens) % length:  # the last
                self._encode(tokens, writer)
                break
            while len(tokens):
                out = writer.room(stride)
                num_chunks = min(len(out) // stride, len(tokens) // length)
                now, tokens = tokens[: num_chunks * length], tokens[num_chunks * length :]
                if not frame(np.ascontiguousarray(now), itemsize, length, out, recent):
                    raise self._outside(now)
                writer.wrote(num_chunks, stride)
                counted += len(now)
                if counted >= _FOLD_TOKENS:
                    self.counts += recent
                    recent[:], counted = 0, 0
        self.counts += recent

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
