"""Mixtures by exact integer quotas: which source a position belongs to, and its place in that source."""

import heapq
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ...config.errors import UserError

MAX_PERIOD = 1 << 16


def quotas_of(weights: Sequence[float], fields: Sequence[str] = ()) -> list[int]:
    """Smallest integers in the ratio of the weights as written in decimal, e.g. [0.7, 0.3] -> [7, 3].

    If they would sum to more than MAX_PERIOD they are rounded (largest remainder) to that sum.
    Raises UserError for a weight that is not positive, or too small a share to be kept; `fields` are their names.
    """
    if not weights or any(not math.isfinite(weight) or weight <= 0 for weight in weights):
        raise UserError("data.train", f"weights {list(weights)}", "give positive numbers")
    exact = [Fraction(str(weight)) for weight in weights]
    scale = math.lcm(*(share.denominator for share in exact))
    whole = [int(share * scale) for share in exact]
    divisor = math.gcd(*whole)
    quotas = [count // divisor for count in whole]
    if sum(quotas) <= MAX_PERIOD:
        return quotas
    return _rounded(weights, quotas, fields or [f"data.train.{index}.weight" for index in range(len(weights))])


def _rounded(weights: Sequence[float], quotas: list[int], fields: Sequence[str]) -> list[int]:
    total = sum(quotas)
    floors = [count * MAX_PERIOD // total for count in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda index: (-(quotas[index] * MAX_PERIOD % total), index))
    for index in by_remainder[: MAX_PERIOD - sum(floors)]:
        floors[index] += 1
    if 0 in floors:
        index = floors.index(0)
        raise UserError(
            fields[index],
            f"{weights[index]} is less than 1 in {MAX_PERIOD} of all weights",
            "raise it, or drop the store",
        )
    return floors


class Mixture:
    """Deals positions out to sources: after any number p of positions, source k has p * q_k / Q of them, +- 1.

    q_k are the quotas and Q their sum. The pattern of one period of Q positions is kept, Q <= MAX_PERIOD.
    """

    def __init__(self, quotas: Sequence[int]) -> None:
        """A quota may be 0, but not all. Raises ValueError for others."""
        if not quotas or min(quotas) < 0 or not any(quotas):
            raise ValueError(f"quotas {list(quotas)} must not be below 0, nor all be 0")
        self.quotas = np.array(quotas, np.int64)
        self.period = int(self.quotas.sum())
        self._source = _deal(list(quotas))
        self._rank = np.empty(self.period, np.int64)
        for source in range(len(quotas)):
            places = np.flatnonzero(self._source == source)
            self._rank[places] = np.arange(len(places))

    def locate(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For positions (int64, >= 0): source of each, and its position within that source; same shape, int64."""
        turn, place = np.divmod(positions, self.period)
        source = self._source[place]
        return source, turn * self.quotas[source] + self._rank[place]

    def counts(self, num_positions: int) -> NDArray[np.int64]:
        """How many of the first `num_positions` positions each source has, int64 [sources]."""
        turns, rest = divmod(num_positions, self.period)
        counts: NDArray[np.int64] = turns * self.quotas + np.bincount(self._source[:rest], minlength=len(self.quotas))
        return counts


def _deal(quotas: list[int]) -> NDArray[np.int64]:
    """Source at each place of one period.

    Occurrence j of source k may stand at places floor(j*Q/q) .. ceil((j+1)*Q/q) - 1; of those allowed, the one
    whose place closes first goes next. Such a schedule always exists, and keeps every prefix within 1 of ideal.
    """
    period = sum(quotas)
    opening = [(0, source, 0) for source, quota in enumerate(quotas) if quota]
    heapq.heapify(opening)
    allowed: list[tuple[int, int, int]] = []
    dealt = np.empty(period, np.int64)
    for place in range(period):
        while opening and opening[0][0] <= place:
            _, source, count = heapq.heappop(opening)
            heapq.heappush(allowed, (-(-(count + 1) * period // quotas[source]), source, count))
        closing, source, count = heapq.heappop(allowed)
        assert place < closing, "a mixture's schedule is always feasible"
        dealt[place] = source
        if count + 1 < quotas[source]:
            heapq.heappush(opening, ((count + 1) * period // quotas[source], source, count + 1))
    return dealt
