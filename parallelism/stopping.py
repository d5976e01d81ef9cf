"""Stopping before the last step: all ranks agree after a step, so that all save the same one and leave together."""

import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from ..config.rundir import RunDir
from ..tracking.ledger import LedgerWriter
from ..tracking.save_times import save_seconds
from .ranks import Rank

_UNKNOWN_SAVE_S = 60.0
"""What a save is taken to need until one has been measured."""
_MARGIN_S = 15.0
"""For leaving, and for the batch script to requeue the job."""


class StopAgreement:
    """Asks every rank after each step whether somebody was told to stop, or the job's time is nearly up."""

    def __init__(
        self, me: Rank, run_dir: RunDir, ledger: LedgerWriter, asked: Callable[[], str], ends_at: float | None
    ) -> None:
        self._me, self._ledger, self._asked, self._ends_at = me, ledger, asked, ends_at
        self._step_s = 0.0
        self._save_s = max(save_seconds(run_dir), default=0.0) if me.rank == 0 else 0.0
        self._began = time.time()

    def step_took(self, seconds: float) -> None:
        """Seconds of the last step; the longest counts, after the first ones have fallen out of memory."""
        self._step_s = max(seconds, 0.9 * self._step_s)

    def save_took(self, seconds: float) -> None:
        """Seconds of a save; the longest counts."""
        self._save_s = max(seconds, self._save_s)

    def agreed(self, step: int) -> bool:
        """Whether all ranks stop now, `step` steps being done. One sum over all ranks on the CPU."""
        mine = self._reason()
        reasons = torch.tensor([bool(mine)], dtype=torch.int32)
        dist.all_reduce(reasons, op=dist.ReduceOp.MAX)
        if not reasons.item():
            return False
        self._ledger.write("stopping", step=step, why=mine or "another rank was asked to")
        return True

    def _reason(self) -> str:
        signal = self._asked()
        if signal:
            return f"SIG{signal}"
        # One clock decides: rank 0's.
        return "time limit" if self._me.rank == 0 and self._time_is_up() else ""

    def _time_is_up(self) -> bool:
        """Another step, and then two saves' time, would not fit before the time limit.

        Never in the first tenth of what was left at the start: a job with hardly any time shall still get somewhere.
        """
        if self._ends_at is None:
            return False
        now = time.time()
        needed = 2 * self._step_s + 2 * (self._save_s or _UNKNOWN_SAVE_S) + _MARGIN_S
        return now + min(needed, 0.9 * (self._ends_at - self._began)) > self._ends_at
