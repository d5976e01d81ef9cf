"""The data order run backwards, from the words of docs/data-order.md: at which position a sample stands."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
_WORD = (1 << 64) - 1


def mix(words: Words) -> Words:
    """`mix` of the docs, element by element."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def absorb(key: Words, word: Words | int) -> Words:
    """`absorb` of the docs."""
    return mix(key ^ mix(np.atleast_1d(np.asarray(word, np.uint64)) + np.uint64(0x9E3779B97F4A7C15)))


def unpermute(values: Words, sizes: Words, keys: Words) -> Words:
    """What `permute` took to give these values: its rounds in reverse, walked until inside."""
    result, todo = values.copy(), np.arange(len(values))
    while len(todo):
        result[todo] = _unround(result[todo], sizes[todo], keys[todo])
        todo = todo[result[todo] >= sizes[todo]]
    return result


def _unround(values: Words, sizes: Words, keys: Words) -> Words:
    roots = {size: math.isqrt(size - 1) + 1 for size in np.unique(sizes).tolist()}
    rows = np.array([roots[size] for size in sizes.tolist()], np.uint64)
    columns = (sizes + rows - np.uint64(1)) // rows
    row, column = np.divmod(values, columns)
    for turn in reversed(range(8)):
        keyed = absorb(keys, turn)
        if turn % 2 == 0:
            row = (row + rows - mix(column ^ keyed) % rows) % rows
        else:
            column = (column + columns - mix(row ^ keyed) % columns) % columns
    result: Words = row * columns + column
    return result


@dataclass(frozen=True)
class InverseOrder:
    """Of one epoch of an order of version 1."""

    num_samples: int
    seed: int
    window: int | None
    epoch: int

    def positions(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Position of each sample in the run's order, int64 [n]."""
        result, todo = samples.astype(np.uint64), np.arange(len(samples))
        while len(todo):
            result[todo] = self._step(result[todo])
            todo = todo[result[todo] >= self.num_samples]
        return result.astype(np.int64) + self.epoch * self.num_samples

    def _step(self, samples: Words) -> Words:
        """Steps 4 and 3 of the docs in reverse."""
        block, span, num_blocks = self._sizes
        drawn, offset = np.divmod(samples, np.uint64(block))
        slots = unpermute(drawn, np.full_like(drawn, num_blocks), np.resize(absorb(self._key, 1), len(drawn)))
        inside = slots * np.uint64(block) + offset
        windows = inside // np.uint64(span)
        firsts = windows * np.uint64(span)
        sizes = np.minimum(np.uint64(span), np.uint64(num_blocks * block) - firsts)
        result: Words = firsts + unpermute(inside - firsts, sizes, absorb(absorb(self._key, 2), windows))
        return result

    @cached_property
    def _sizes(self) -> tuple[int, int, int]:
        """Samples of a block, places of a window, and the number of blocks."""
        window = min(self.window or self.num_samples, self.num_samples)
        block = min(64, max(1, window // 16))
        return block, block * -(-window // block), -(-self.num_samples // block)

    @cached_property
    def _key(self) -> Words:
        key = np.zeros(1, np.uint64)
        for word in (self.seed, 1, self.epoch):
            key = absorb(key, word & _WORD)
        return key
