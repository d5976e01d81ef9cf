"""Silent data corruption: a step's gradient is computed twice, and has to come out the same, bit by bit."""

import json
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import google_crc32c
import torch

from ..config.run import RunConfig
from ..storage.checkpoints.checkpoint_writer import OwnedRectangle
from .engine import Engine, Samples, StepResult, Watch
from .ranks import all_agree, text_from_rank_zero, texts_at_rank_zero

_TOLERANCE = 1e-3
"""Relative, of loss and gradient norm, where kernels are not deterministic."""


@dataclass(frozen=True)
class _Computed:
    """What one computation of a step gave on this rank."""

    local_loss: float
    gradient: int
    """crc32c of what this rank owns of the gradient."""
    grad_norm: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two computations of a step differ."""

    ranks: list[int]
    """Those whose own loss came out otherwise; if none, those that own a gradient that did."""
    hosts: list[str]
    mine: bool
    """This process is one of them."""

    @property
    def words(self) -> str:
        """In one line."""
        ranks = f"rank{'s' * (len(self.ranks) > 1)} {', '.join(map(str, self.ranks))}"
        return f"computed twice, the gradient came out otherwise on {ranks} ({', '.join(self.hosts)})"


class Corruption:
    """Compares a step with itself. Every rank calls the same methods at the same steps."""

    def __init__(self, run: RunConfig, rank: int) -> None:
        self._every, self._rank = run.guards.recompute_every, rank
        self._bitwise = run.train.deterministic or not torch.cuda.is_available()
        self._gradient = 0
        self._first: _Computed | None = None

    def begin(self, engine: Engine, samples: Samples, rate: float, step: int) -> None:
        """Compute a step for the first time, without its update, if it is one that is compared."""
        self._first = None
        if self._every is not None and step % self._every == 0:
            self._first = self._computed(engine.train_step(samples, rate, lambda _: False, self._watch))

    @property
    def watch(self) -> Watch | None:
        """For the second computation; None if there was no first."""
        return self._watch if self._first else None

    def compare(self, result: StepResult) -> Difference | None:
        """Hold the second computation against the first, if there was one; the same on every rank but for `mine`."""
        if self._first is None:
            return None
        first, second = self._first, self._computed(result)
        if all_agree(self._alike(first, second)):
            return None
        record = {"host": socket.gethostname(), "first": asdict(first), "second": asdict(second)}
        records = [json.loads(text) for text in texts_at_rank_zero(json.dumps(record))]
        ranks = self._culprits(records)
        found = {"ranks": ranks, "hosts": sorted({records[rank]["host"] for rank in ranks})}
        told = json.loads(text_from_rank_zero(json.dumps(found)))
        return Difference(**told, mine=self._rank in told["ranks"])

    def _watch(self, owned: Iterator[OwnedRectangle]) -> None:
        self._gradient = 0
        for rectangle in owned:
            self._gradient = google_crc32c.extend(self._gradient, rectangle.values.tobytes())

    def _computed(self, result: StepResult) -> _Computed:
        return _Computed(result.local_loss, self._gradient, result.grad_norm, result.loss)

    def _alike(self, first: _Computed, second: _Computed) -> bool:
        if first.loss != first.loss:  # NaN is another guard's
            return True
        return not any(self._differ(getattr(first, name), getattr(second, name)) for name in self._compared)

    def _differ(self, first: float, second: float) -> bool:
        return first != second if self._bitwise else abs(first - second) > _TOLERANCE * abs(first)

    @property
    def _compared(self) -> tuple[str, ...]:
        """A wrong forward pass shows in its own rank's loss; a wrong backward pass in gradients, once they are summed.

        Checksums say nothing about gradients that are only nearly alike.
        """
        return ("local_loss", *(["gradient"] if self._bitwise else []), "grad_norm", "loss")

    def _culprits(self, records: list[dict[str, dict[str, float]]]) -> list[int]:
        for name in self._compared:
            ranks = [
                rank for rank, each in enumerate(records) if self._differ(each["first"][name], each["second"][name])
            ]
            if ranks:
                return ranks
        return []
