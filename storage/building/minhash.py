"""MinHash signatures of token ids, in NumPy: how many values two of them share estimates the documents' similarity.

The similarity is Jaccard's, of the sets of five consecutive tokens. A signature is 128 minima of hash values; a band is
a few of them together, and documents that share a band are compared.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_HASHES = 128
_SHINGLE = 5
_AT_ONCE = 512  # shingles; with 128 values each they fit a core's cache
_SURE = 0.99
# A shingle's tokens are weighed and mixed (the constants are splitmix64's), then hashed by multiply-shift.
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def _constants(seed: int, count: int) -> NDArray[np.uint64]:
    """Numbers of splitmix64: the same on every machine and with every NumPy."""
    with np.errstate(over="ignore"):
        state = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return _mixed(state)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * _MIX[0]
        values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


_WEIGHTS = _constants(1, _SHINGLE) | np.uint64(1)
_FACTORS = (_constants(2, NUM_HASHES) | np.uint64(1))[:, None]
_OFFSETS = _constants(3, NUM_HASHES)[:, None]


def rows_per_band(threshold: float) -> int:
    """The most rows with which documents as similar as the threshold share a band with probability 0.99."""
    for rows in range(NUM_HASHES // 4, 1, -1):
        if 1 - (1 - threshold**rows) ** (NUM_HASHES // rows) >= _SURE:
            return rows
    return 1


@dataclass(frozen=True)
class MinHasher:
    """Signatures and bands for one threshold."""

    threshold: float

    def signature(self, tokens: NDArray[Any]) -> NDArray[np.uint32]:
        """uint32 [128] of a document's token ids; one of fewer than five is one sequence."""
        values = tokens.astype(np.uint64)
        count = max(1, len(values) - _SHINGLE + 1)
        with np.errstate(over="ignore"):
            shingles = np.zeros(count, np.uint64)
            for place, weight in enumerate(_WEIGHTS[: len(values)]):
                shingles += (values[place : place + count] + np.uint64(1)) * weight
            shingles = _mixed(shingles)
            smallest = np.full(NUM_HASHES, np.iinfo(np.uint64).max, np.uint64)
            for start in range(0, count, _AT_ONCE):
                hashes = shingles[start : start + _AT_ONCE] * _FACTORS + _OFFSETS
                np.minimum(smallest, hashes.min(axis=1), out=smallest)
        return (smallest >> np.uint64(32)).astype(np.uint32)

    def bands(self, signature: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """uint64 [bands]: one key per band."""
        rows = rows_per_band(self.threshold)
        used = signature[: NUM_HASHES // rows * rows].astype(np.uint64).reshape(-1, rows)
        keys = np.zeros(len(used), np.uint64)
        with np.errstate(over="ignore"):
            for column in used.T:
                keys = _mixed(keys * np.uint64(0x9E3779B97F4A7C15) + column + np.uint64(1))
        return keys
