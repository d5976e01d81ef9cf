"""Notices that this rank makes no progress, reports where it is, and ends it with a verdict.

Progress is a new step, or a new phase such as a save; a living process is none. The watchdog is a thread, so it works
while the main thread waits in a collective or in C code that has let go of Python's lock. Of a thread that never lets
go, faulthandler's own timer, which needs no lock, still leaves the stacks; the other ranks report for it.
"""

import contextlib
import faulthandler
import os
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from ..config.restarts import RestartsConfig
from ..config.verdicts import HUNG
from .hang_report import Reporter

_FLOOR_S, _STEPS = 300.0, 20
"""Without `restarts.hang_after_s`: at least so many seconds, and so many median steps."""
_MEASURED = 3  # steps before the median means anything: the first ones compile, allocate and connect
_SAVES = 10
_LAST_RESORT_S = 30.0
_BEAT_S = 15.0


class HangLimits:
    """How long what may take, by the run file and by what it has taken so far."""

    def __init__(self, config: RestartsConfig) -> None:
        self._config = config
        self._steps: deque[float] = deque(maxlen=100)
        self._save_s = 0.0

    def step_took(self, seconds: float) -> None:
        """A step was finished in so many seconds."""
        self._steps.append(seconds)

    def save_took(self, seconds: float) -> None:
        """A save was finished in so many seconds."""
        self._save_s = max(seconds, self._save_s)

    @property
    def steady(self) -> bool:
        """Steps from here on may be held to the limit of a step."""
        return len(self._steps) >= (_MEASURED if self._config.hang_after_s is None else 1)

    def seconds(self, phase: str) -> float:
        """Seconds without progress in this phase that make a hang."""
        if phase == "step":
            return self._config.hang_after_s or max(_FLOOR_S, _STEPS * statistics.median(self._steps))
        if phase == "save":
            return max(self._config.hang_outside_steps_s, _SAVES * self._save_s)
        return self._config.hang_outside_steps_s


class Watchdog:
    """Watches one rank from its start to its end, as a context manager."""

    def __init__(
        self,
        limits: HangLimits,
        reporter: Reporter,
        hung: Callable[[str], None] | None = None,
        heartbeat: Path | None = None,
    ) -> None:
        """`hung` is given one line and ends the process; without it the process just ends, with the verdict's code.

        `heartbeat` is touched while the process lives, for `status` where Slurm does not answer.
        """
        self._limits, self._reporter, self._hung = limits, reporter, hung or _leave
        self._heartbeat, self._beat_at_s = heartbeat, float("-inf")
        self._phase, self._step = "start", 0
        self._awake_s = 0.0
        """Time in which this process ran: a job that Slurm suspends for hours has not hung."""
        self._progress = 0
        self._progress_at_s = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(_LAST_RESORT_S)
        faulthandler.cancel_dump_traceback_later()
        self._reporter.close()

    def entered(self, phase: str) -> None:
        """Another phase begins."""
        self._phase = phase
        self._progressed()

    def step_done(self, step: int, seconds: float) -> None:
        """A step is finished."""
        self._step = step
        self._limits.step_took(seconds)
        self.entered("step" if self._limits.steady else "first step")

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """A save, after which steps go on."""
        before, began = self._phase, time.perf_counter()
        self.entered("save")
        yield
        self._limits.save_took(time.perf_counter() - began)
        self.entered(before)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Perhaps an evaluation, after which steps go on."""
        before = self._phase
        self.entered("evaluation")
        yield
        self.entered(before)

    def _progressed(self) -> None:
        self._progress_at_s = self._awake_s
        self._progress += 1

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._done.wait(self._tick_s()):
            now = time.monotonic()
            self._beat(now)
            self._awake_s += min(now - last, 2 * self._tick_s())
            last = now
            limit_s = self._limits.seconds(self._phase)
            faulthandler.dump_traceback_later(limit_s, file=self._reporter.stacks)
            idle_s = self._awake_s - self._progress_at_s
            # Clocks differ where ranks get little time to run: when one has reported, those that wait for it do too.
            stalled = idle_s > limit_s + self._tick_s() or (idle_s > limit_s / 2 and self._reporter.reported())
            if stalled and self._stalled(limit_s):
                return

    def _beat(self, now: float) -> None:
        if self._heartbeat and now - self._beat_at_s > _BEAT_S:
            self._beat_at_s = now
            with contextlib.suppress(OSError):  # a full disk is for others to name
                self._heartbeat.parent.mkdir(mode=0o700, exist_ok=True)
                self._heartbeat.touch()

    def _tick_s(self) -> float:
        return min(1.0, self._limits.seconds(self._phase) / 10)

    def _stalled(self, limit_s: float) -> bool:
        """Report, wait for the others' reports, and end the process, unless it goes on after all; whether it ends."""
        patience_s = min(60.0, max(5.0, limit_s / 2))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        # Ends this process even if the file system does not answer to what follows.
        faulthandler.dump_traceback_later(patience_s + _LAST_RESORT_S, file=nowhere, exit=True)
        before, idle_s = self._progress, self._awake_s - self._progress_at_s
        phase, step = self._phase, self._step
        self._reporter.report(phase, step, idle_s)
        began = time.monotonic()
        asked, waited_s = False, 0.0
        while not (whole := self._reporter.reported() == self._reporter.world_size):
            waited_s = time.monotonic() - began
            if waited_s > patience_s or self._progress != before or self._done.wait(0.2):
                break
            if not asked and waited_s > patience_s / 2:
                asked = True
                self._reporter.report(phase, step, idle_s, look_around=True)
        goes_on = self._progress != before or not (whole or idle_s + waited_s > limit_s)
        if not goes_on and not self._done.is_set():
            line = f"no progress for {idle_s:.0f} s in phase {phase!r} after step {step}"
            print(f"trainwright: hang: {line}; {self._reporter.words}", file=sys.stderr, flush=True)
            self._hung(line)
        faulthandler.cancel_dump_traceback_later()
        os.close(nowhere)
        if goes_on:  # else the others have left, which the main thread has noticed: what was reported stays
            self._reporter.withdraw()
        return not goes_on


def _leave(line: str) -> None:
    os._exit(HUNG)
