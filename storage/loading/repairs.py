"""Samples that touch a chunk known to be bad, and those that are read in their place.

What is replaced is a pure function of the recorded list, so all ranks and all later attempts agree:
docs/data-order.md has it in words.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config.errors import FoundBad
from .order import Order
from .samples import Numbers, Samples

_TRIES = 64


@dataclass(frozen=True, order=True)
class Repair:
    """From a position of the run's order on, samples of a store that touch one of its inner chunks are replaced."""

    source: int
    """Place of the store in data.train."""
    chunk: int
    position: int

    def record(self) -> dict[str, Any]:
        """For the ledger."""
        return asdict(self)


class Replacer:
    """Replaces the samples of one store."""

    def __init__(self, samples: Samples, repairs: list[Repair], seed: int, chunk_tokens: int) -> None:
        self._samples, self._repairs, self._chunk_tokens = samples, repairs, chunk_tokens
        self._others = Order(samples.num_samples, (seed + 1) % (1 << 64))

    def replace(self, numbers: Numbers, positions: Numbers, own: Numbers) -> tuple[Numbers, int]:
        """Samples to read instead of `numbers`, and how many are others.

        positions are those of the run's order, `own` those within the store's. Raises FoundBad if nothing is left.
        """
        bad = self._touches(numbers, positions)
        count = int(bad.sum())
        result = numbers.copy()
        for turn in range(_TRIES):
            rows = np.flatnonzero(bad)
            if not len(rows):
                return result, count
            result[rows] = self._others.samples(own[rows] + turn * self._samples.num_samples)
            bad[rows] = self._touches(result[rows], positions[rows])
        raise FoundBad("data.train", "too many chunks are bad to replace samples", "repair the store")

    def _touches(self, numbers: Numbers, positions: Numbers) -> NDArray[np.bool_]:
        rows, starts, stops = self._samples.extents(numbers)
        first, last = starts // self._chunk_tokens, (stops - 1) // self._chunk_tokens
        found = np.zeros(len(numbers), bool)
        for repair in self._repairs:
            touched = rows[(first <= repair.chunk) & (repair.chunk <= last)]
            found[touched] |= positions[touched] >= repair.position
        return found
