"""The data order: which sample stands at a position. A pure function; docs/data-order.md gives it in words.

Nothing is stored and nothing is precomputed: a position is looked up in constant time and memory, so training
resumes anywhere from one integer. Rank, layout and batch size are not arguments.
"""

import math

import numpy as np
from numpy.typing import NDArray

ORDER_VERSION = 1

try:
    from . import _order
except ImportError:  # nothing could be compiled; NumPy gives the same values
    _order = None  # type: ignore[assignment]

Words = NDArray[np.uint64]

_ROUNDS = 8
MAX_BLOCK = 64
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_BLOCK_LEVEL, _SAMPLE_LEVEL = 1, 2


class Order:
    """Bijective order of `num_samples` samples, another one in every epoch.

    Positions are cut into windows of about `window` samples. A window holds whole blocks of neighbouring samples,
    drawn from all over the store, and shuffles their samples among themselves. A small window keeps reads local;
    the default, the whole store, is a true shuffle.
    """

    def __init__(self, num_samples: int, seed: int, window: int | None = None) -> None:
        """Raises ValueError unless 1 <= num_samples < 2**48, 0 <= seed < 2**64 and window is None or >= 1."""
        if not 1 <= num_samples < 1 << 48:
            raise ValueError(f"num_samples {num_samples} is not in 1..2**48-1")
        if not 0 <= seed < 1 << 64 or (window is not None and window < 1):
            raise ValueError(f"seed {seed} must be in 0..2**64-1 and window {window} at least 1")
        window = min(window or num_samples, num_samples)
        self.num_samples = num_samples
        self._block = min(MAX_BLOCK, max(1, window // 16))
        self._num_blocks = -(-num_samples // self._block)
        self._span = -(-window // self._block) * self._block
        self._key = absorb(absorb(np.zeros(1, np.uint64), seed), ORDER_VERSION)

    def samples(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sample at each position (any shape, int64, >= 0); values in 0..num_samples-1, same shape, int64."""
        flat = np.ascontiguousarray(positions, np.int64).reshape(-1)
        if _order is None:
            if flat.size and int(flat.min()) < 0:
                raise ValueError(f"position {int(flat.min())} is below 0")
            return self._samples(flat).reshape(np.shape(positions))
        result = np.empty_like(flat)
        key, num_blocks = int(self._key[0]), self._num_blocks
        _order.samples(key, self.num_samples, self._block, self._span, num_blocks, flat, result)
        return result.reshape(np.shape(positions))

    def _samples(self, flat: NDArray[np.int64]) -> NDArray[np.int64]:
        epoch, place = np.divmod(flat.astype(np.uint64), np.uint64(self.num_samples))
        key = absorb(self._key, epoch)
        result = self._step(place, key)
        # The blocks may cover a few more places than there are samples: walk on until inside.
        while (outside := np.flatnonzero(result >= np.uint64(self.num_samples))).size:
            result[outside] = self._step(result[outside], key[outside])
        return result.astype(np.int64)

    def _step(self, place: Words, key: Words) -> Words:
        """One pass of both levels over places 0..num_blocks*block-1."""
        block, span = np.uint64(self._block), np.uint64(self._span)
        total = np.uint64(self._num_blocks * self._block)
        window = place // span
        first = window * span
        size = np.minimum(span, total - first)
        inside = _permute(place - first, size, absorb(absorb(key, _SAMPLE_LEVEL), window))
        slot, offset = np.divmod(first + inside, block)
        drawn = _permute(slot, np.full_like(slot, self._num_blocks), absorb(key, _BLOCK_LEVEL))
        step: Words = drawn * block + offset
        return step


def _permute(value: Words, size: Words, key: Words) -> Words:
    """Keyed bijection of 0..size-1 for each element: a Feistel network over a grid, walked until inside."""
    rows, columns = _grid(size)
    result = _feistel(value, rows, columns, key)
    while (outside := np.flatnonzero(result >= size)).size:
        result[outside] = _feistel(result[outside], rows[outside], columns[outside], key[outside])
    return result


def _grid(size: Words) -> tuple[Words, Words]:
    """Nearly square grid with at least `size` cells: rows = ceil(sqrt(size)), columns = ceil(size / rows)."""
    rows, columns = np.empty_like(size), np.empty_like(size)
    for one in sorted(set(size.tolist())):
        root = math.isqrt(one - 1) + 1
        rows[size == one], columns[size == one] = root, -(-one // root)
    return rows, columns


def _feistel(value: Words, rows: Words, columns: Words, key: Words) -> Words:
    """Rounds turn by turn add a keyed hash of the column to the row, and of the row to the column."""
    row, column = np.divmod(value, columns)
    for turn in range(_ROUNDS):
        keyed = absorb(key, turn)
        if turn % 2 == 0:
            row = (row + _mix(column ^ keyed) % rows) % rows
        else:
            column = (column + _mix(row ^ keyed) % columns) % columns
    cell: Words = row * columns + column
    return cell


def absorb(key: Words, word: Words | int) -> Words:
    """A new key from a key and one 64-bit word; arrays of at least one axis, so that sums wrap silently."""
    return _mix(key ^ _mix(np.atleast_1d(np.asarray(word, np.uint64)) + np.uint64(_GOLDEN)))


def _mix(words: Words) -> Words:
    """The finaliser of splitmix64, element by element; arrays wrap around modulo 2**64."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(_MULTIPLIERS[0])
    words = (words ^ (words >> np.uint64(27))) * np.uint64(_MULTIPLIERS[1])
    return words ^ (words >> np.uint64(31))
