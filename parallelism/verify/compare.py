"""What ranks computed against what one rank computes, tensor by tensor: a difference above its limit is a finding."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...config.model import ModelShape
from ...storage.checkpoints.rectangles import Rectangle, matrix_shape
from ...storage.checkpoints.slots import MOMENT, SLOTS, SQUARE, moments_of
from ...storage.checkpoints.tensor_names import is_expert_bias, tensor_shapes
from ...storage.checkpoints.tensor_source import WEIGHT, InitialWeights
from ..engine import GRADIENT
from .drawn import DrawnState
from .ranks import INITIAL, LOADED
from .reference import Outcome, Slots

LIMIT = 1e-5
"""Of loss, gradient norm and every gradient in the first step, which begins from one state."""
LATER = 1e-4
"""Of the second step, which begins from what rounding made of the first; of an update against its own size."""
_FLOOR = 1e-4
"""Gradients smaller than this share of the global norm are measured against it: they are sums that all but cancel."""
_ROUNDING = 2.0**-22
"""Of weights: a few times float32's, against which a small update is lost."""


@dataclass(frozen=True)
class Finding:
    """One disagreement."""

    what: str
    difference: float
    limit: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every disagreement, and the largest difference of each kind where there was none."""

    findings: list[Finding]
    largest: dict[str, float]


class Comparer:
    """Compares one layout's folder (see ranks.compute) with outcomes of the reference."""

    def __init__(self, model: ModelShape, folder: Path, optimizer: str) -> None:
        self._folder = folder
        self._shapes = {name: matrix_shape(shape) for name, shape in tensor_shapes(model).items()}
        self._drawn, self._model = DrawnState(model), model
        self._optimizer = optimizer
        self._findings: list[Finding] = []
        self._largest: dict[str, float] = {}

    def compare(self, outcomes: list[Outcome], seed: int) -> Comparison:
        """`seed` is that of the first weights."""
        self._first_weights(seed)
        self._loaded()
        before = self._drawn_weights()
        for number, outcome in enumerate(outcomes, 1):
            self._step(number, outcome, before)
            before = outcome.slots[WEIGHT]
        return Comparison(findings=self._findings, largest=self._largest)

    def _first_weights(self, seed: int) -> None:
        """What each layout must start with is what one rank starts with, and no two matrices of it are alike."""
        found = self._read(INITIAL)[WEIGHT]
        expected = InitialWeights(self._model, seed)
        for name, (rows, cols) in self._shapes.items():
            whole = expected.read_rectangle(WEIGHT, name, Rectangle(row=0, num_rows=rows, col=0, num_cols=cols))
            self._equal(f"first weights of {name}", found[name], whole)
        drawn = {name: each for name, each in found.items() if min(self._shapes[name]) > 1}
        for (one, left), (other, right) in combinations(drawn.items(), 2):
            if left.shape == right.shape and np.array_equal(left, right):
                self._findings.append(Finding(f"first weights of {one} and {other} are the same", 0.0, 0.0))

    def _loaded(self) -> None:
        """What is loaded is what is saved."""
        for slot, named in self._read(LOADED).items():
            for name, values in named.items():
                self._equal(f"{slot} of {name}, loaded and saved again", values, self._drawn.whole(slot, name))

    def _step(self, number: int, outcome: Outcome, before: dict[str, NDArray[np.float64]]) -> None:
        limit = LIMIT if number == 1 else LATER
        for file in sorted((self._folder / str(number)).glob("result-*.json")):
            result = json.loads(file.read_text())
            rank = file.stem.removeprefix("result-")
            for kind in ("loss", "grad_norm"):
                expected = getattr(outcome, kind)
                difference = abs(result[kind] - expected) / abs(expected)
                self._note(f"{kind} on rank {rank}, step {number}", f"{kind}, step {number}", difference, limit)
            if result["tokens"] != outcome.tokens:
                self._findings.append(Finding(f"tokens on rank {rank}: {result['tokens']}, not {outcome.tokens}", 0, 0))
            if outcome.load is not None and number == 1:
                worst = float(np.abs(np.array(result["load"]) - outcome.load).max())
                self._note(f"expert load on rank {rank}", "expert load, step 1", worst, LIMIT)
        self._gradients(number, outcome, limit)
        self._state(number, outcome, before)

    def _gradients(self, number: int, outcome: Outcome, limit: float) -> None:
        found = self._read(f"{number}/{GRADIENT}", (GRADIENT,))[GRADIENT]
        for name, expected in outcome.slots[GRADIENT].items():
            size = max(_norm(expected), _FLOOR * outcome.grad_norm)
            difference = _norm(found[name] - expected) / size
            self._note(f"gradient of {name}, step {number}", f"gradients, step {number}", difference, limit)

    def _state(self, number: int, outcome: Outcome, before: dict[str, NDArray[np.float64]]) -> None:
        """Weights and moments after the update."""
        for slot, named in self._read(f"{number}/state").items():
            for name, values in named.items():
                expected = outcome.slots[slot][name]
                difference = _norm(values - expected)
                if slot == WEIGHT:
                    difference = max(difference - _ROUNDING * _norm(expected), 0.0)  # in this order a nan stays one
                    size = _norm(expected - before[name])
                else:
                    size = _norm(expected)
                if size:  # else the bias of experts that are all in balance, which must not move
                    difference /= size
                self._note(f"{slot} of {name} after step {number}", f"{slot}, step {number}", difference, LATER)

    def _drawn_weights(self) -> dict[str, NDArray[np.float64]]:
        return {name: self._drawn.whole(WEIGHT, name).astype(np.float64) for name in self._shapes}

    def _equal(self, what: str, found: NDArray[np.float64], expected: NDArray[np.float32]) -> None:
        if not np.array_equal(found.astype(np.float32), expected, equal_nan=True):
            self._findings.append(Finding(what, float(np.abs(found - expected).max()), 0.0))

    def _note(self, what: str, kind: str, difference: float, limit: float) -> None:
        self._largest[kind] = max(self._largest.get(kind, 0.0), difference)
        if not difference <= limit:  # so that a nan is one too
            self._findings.append(Finding(what, difference, limit))

    def _read(self, place: str, slots: tuple[str, ...] = SLOTS) -> Slots:
        """All ranks' rectangles put together; elements that no rank or several ranks hold are findings."""
        whole = {slot: {name: np.zeros(shape) for name, shape in self._held(slot).items()} for slot in slots}
        times = {slot: {name: np.zeros(shape, np.int8) for name, shape in self._held(slot).items()} for slot in slots}
        for slot, name, rows, cols, values in _rectangles(self._folder / place):
            whole[slot][name][rows, cols] = values
            times[slot][name][rows, cols] += 1
        for slot, named in times.items():
            for name, count in named.items():
                if (count != 1).any():
                    words = f"{int((count == 0).sum())} elements by no rank, {int((count > 1).sum())} by several"
                    self._findings.append(Finding(f"{slot} of {name} ({place}) is held: {words}", 1.0, 0.0))
        return whole

    def _held(self, slot: str) -> dict[str, tuple[int, int]]:
        """Tensors that have the slot, with their shapes."""
        if slot == GRADIENT:
            return {name: shape for name, shape in self._shapes.items() if not is_expert_bias(name)}
        return {
            name: shape
            for name, shape in self._shapes.items()
            if slot not in (MOMENT, SQUARE) or slot in moments_of(self._optimizer, [name])
        }


def _rectangles(folder: Path) -> Iterator[tuple[str, str, slice, slice, NDArray[np.float32]]]:
    for index in sorted(folder.glob("rank-*.json")):
        with np.load(index.with_suffix(".npz")) as arrays:
            for number, each in enumerate(json.loads(index.read_text())):
                rows = slice(each["row"], each["row"] + each["num_rows"])
                cols = slice(each["col"], each["col"] + each["num_cols"])
                yield each["slot"], each["name"], rows, cols, arrays[str(number)]


def _norm(values: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(values))
