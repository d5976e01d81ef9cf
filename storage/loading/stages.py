"""Mixtures whose weights change: stages by position, each with exact quotas; docs/data-order.md has it in words."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config.data import DataConfig, Stage
from ...config.errors import UserError
from .mixture import Mixture, quotas_of

Counts = NDArray[np.int64]
Record = Mapping[str, Any]
"""A stage in a checkpoint's manifest: its `first` position and the `quotas` of the sources."""


class Stages:
    """Deals positions out to sources, stage by stage; a source's own positions go on from stage to stage.

    Within a stage every source is within 1 of its share, as Mixture says; so within s + 1 of it in stage s, from 0.
    """

    def __init__(self, stages: Sequence[tuple[int, Sequence[int]]]) -> None:
        """`stages`: the first position and the quotas of each. Raises ValueError unless they begin at 0 and rise."""
        firsts = [first for first, _ in stages]
        if firsts[:1] != [0] or any(after <= first for first, after in pairwise(firsts)):
            raise ValueError(f"stages begin at {firsts}: not at 0 first, and then each after the one before")
        patterns = [tuple(quotas) for _, quotas in stages]
        mixtures = {quotas: Mixture(quotas) for quotas in set(patterns)}  # long ones take a tenth of a second to make
        self._mixtures = [mixtures[quotas] for quotas in patterns]
        self._firsts = np.array(firsts, np.int64)
        self._before = np.zeros((len(stages), len(stages[0][1])), np.int64)  # of each source when a stage begins
        for stage, length in enumerate(np.diff(self._firsts).tolist()):
            self._before[stage + 1] = self._before[stage] + self._mixtures[stage].counts(length)

    @classmethod
    def of(cls, data: DataConfig) -> "Stages":
        """Those of a run file's data section. Raises UserError for a share too small to be kept."""
        given = data.stages or [Stage()]
        quotas = [_quotas(data, number, stage) for number, stage in enumerate(given)]
        return cls(list(zip(data.stage_firsts, quotas, strict=True)))

    def locate(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For positions (int64 [n], >= 0): source of each, and its position within that source; int64 [n]."""
        if len(self._mixtures) == 1:
            return self._mixtures[0].locate(positions)
        stages = self.stages_of(positions)
        sources, places = np.empty_like(positions), np.empty_like(positions)
        for stage in sorted(set(stages.tolist())):
            rows = np.flatnonzero(stages == stage)
            sources[rows], own = self._mixtures[stage].locate(positions[rows] - self._firsts[stage])
            places[rows] = own + self._before[stage, sources[rows]]
        return sources, places

    def stages_of(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Stage of each position, from 0; same shape."""
        return np.searchsorted(self._firsts, positions, side="right") - 1

    def counts(self, num_positions: int) -> Counts:
        """How many of the first `num_positions` positions each stage gives each source, int64 [stages, sources]."""
        counts = np.zeros_like(self._before)
        ends = [*self._firsts[1:].tolist(), num_positions]
        for stage, (first, end) in enumerate(zip(self._firsts.tolist(), ends, strict=True)):
            counts[stage] = self._mixtures[stage].counts(max(0, min(end, num_positions) - first))
        return counts

    def record(self) -> list[Record]:
        """The stages, for a checkpoint's manifest."""
        pairs = zip(self._firsts.tolist(), self._mixtures, strict=True)
        return [{"first": first, "quotas": mixture.quotas.tolist()} for first, mixture in pairs]


def change_of(old: Sequence[Record], new: Sequence[Record]) -> int | None:
    """First position at which two records of stages differ in what they deal out, None if there is no such.

    Quotas are compared, so a boundary between equal stages counts too: the pattern begins again there.
    """
    for before, after in zip(old, new, strict=False):
        if before != after:
            same_first = before["first"] == after["first"]
            return int(before["first"] if same_first else min(before["first"], after["first"]))
    rest = [*old[len(new) :], *new[len(old) :]]
    return int(rest[0]["first"]) if rest else None


def require_same_past(old: Sequence[Record], new: Sequence[Record], position: int, length: int) -> int | None:
    """Position from which on the stages are others, None if they are not.

    Raises UserError if that is before `position`: samples of `length` tokens were read by the old ones until there.
    """
    change = change_of(old, new)
    if change is not None and change < position:
        problem = f"change what {position * length:,} tokens of this run were read by, from {change * length:,} on"
        raise UserError("data.stages", problem, "change only stages that begin later, or start a new run")
    return change


def _quotas(data: DataConfig, number: int, stage: Stage) -> list[int]:
    """Quotas of a stage, 0 for a source that it leaves out."""
    if stage.weights is None:
        return quotas_of([source.weight for source in data.train])
    weights = [stage.weights.get(source.label, 0.0) for source in data.train]
    taken = [index for index, weight in enumerate(weights) if weight]
    fields = [f"data.stages.{number}.weights.{data.train[index].label}" for index in taken]
    quotas = [0] * len(weights)
    for index, quota in zip(taken, quotas_of([weights[index] for index in taken], fields), strict=True):
        quotas[index] = quota
    return quotas
