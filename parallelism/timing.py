"""Which rank is slow: now and then all ranks tell how long they computed, waited for others, and waited for data."""

import json
import socket
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..tracking.console import say
from ..tracking.ledger import LedgerWriter
from .collectives import RECORD
from .preflight_measures import matrix_product
from .ranks import Rank, texts_at_rank_zero

EVENT = "straggler"
_LEAST_S = 0.02
"""Seconds per step above the median that are worth a word."""


@dataclass(frozen=True, kw_only=True)
class RankTimes:
    """Means per step over the last steps of one rank, in seconds."""

    rank: int
    host: str
    step_s: float
    data_s: float
    """Waiting for its next batch."""
    waiting_s: float | None
    """In collectives, for other ranks; None on GPUs, which wait where the host does not see it."""
    tflops: float
    """Of a short matrix product now: a GPU that is throttled shows here."""

    @property
    def busy_s(self) -> float | None:
        """Of its own: neither in collectives nor waiting for data."""
        return None if self.waiting_s is None else self.step_s - self.waiting_s - self.data_s


class Timing:
    """Every rank has one; every `guards.timing_every` steps all of them tell rank 0."""

    def __init__(self, run: RunConfig, run_dir: RunDir, attempt: int, me: Rank, ledger: LedgerWriter) -> None:
        self._every, self._ratio = run.guards.timing_every, run.guards.straggler
        self._path, self._me, self._ledger = run_dir.rank_times(attempt), me, ledger
        self._waited_before_s = RECORD.seconds
        self._begin()

    def step_begins(self) -> None:
        """From here on waiting counts as that of a step; that for saves and evaluations does not."""
        self._waited_before_s = RECORD.seconds

    def data_took(self, seconds: float) -> None:
        """Seconds for which a step waited for its batch."""
        self._data_s += seconds

    def step_done(self, step: int, seconds: float) -> None:
        """A step was finished; now and then all ranks gather."""
        self._steps += 1
        self._step_s += seconds
        self._waited_s += RECORD.seconds - self._waited_before_s
        if self._every is None or self._steps < self._every or self._me.world_size == 1:
            return
        texts = texts_at_rank_zero(json.dumps(asdict(self._mine())))
        if texts:
            self._keep(step, [RankTimes(**json.loads(text)) for text in texts])
        self._begin()

    def _begin(self) -> None:
        self._steps, self._step_s, self._data_s, self._waited_s = 0, 0.0, 0.0, 0.0

    def _mine(self) -> RankTimes:
        on_gpu = torch.cuda.is_available()
        return RankTimes(
            rank=self._me.rank,
            host=socket.gethostname(),
            step_s=self._step_s / self._steps,
            data_s=self._data_s / self._steps,
            waiting_s=None if on_gpu else self._waited_s / self._steps,
            tflops=matrix_product(0.05 if on_gpu else 0.005)[0],
        )

    def _keep(self, step: int, ranks: list[RankTimes]) -> None:
        _append(self._path, {"step": step, "ranks": [asdict(each) for each in ranks]})
        for words, each in stragglers(ranks, self._ratio):
            self._ledger.write(EVENT, step=step, straggler=each.rank, host=each.host, words=words)
            say(f"step {step}: rank {each.rank} on {each.host} {words}")


def stragglers(ranks: list[RankTimes], ratio: float) -> list[tuple[str, RankTimes]]:
    """Ranks that take `ratio` times the median and more, with words: reading, computing a step, or a matrix product."""
    found = []
    for name in ("data_s", "busy_s"):
        values = {each.rank: getattr(each, name) for each in ranks}
        if None in values.values():
            continue
        median = statistics.median(values.values())
        for each in ranks:
            value = values[each.rank]
            if value > ratio * median and value > median + _LEAST_S:
                what = "waits for its data" if name == "data_s" else "computes"
                found.append((f"{what} {value:.3f} s of each step, the median rank {median:.3f} s", each))
    median = statistics.median(each.tflops for each in ranks)
    for each in ranks:
        if each.tflops * ratio < median:
            found.append((f"multiplies matrices at {each.tflops:.3g} Tflop/s, the median rank at {median:.3g}", each))
    return found


def _append(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
