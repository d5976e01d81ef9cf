"""Watching a run from outside: waiting for its end with progress."""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from ..config.rundir import RunDir
from .status import RunStatus, read_status

LEDGER_EVERY_S = 1.0
SLURM_EVERY_S = 5.0  # squeue is shared by everybody
_UNKNOWN_FOR_S = 60.0


OVER = ("finished", "failed", "cancelled")


def is_over(now: RunStatus) -> bool:
    """Whether the run has ended for good. What is unknown has not."""
    return now.state in OVER


def wait_for_end(run: RunDir, show: Callable[[str], None]) -> RunStatus:
    """Until the run is over (or nobody has known for a minute); its last status. `show` gets a line of progress."""
    unknown_since = None
    rate = _Rate()
    while True:
        now = read_status(run)
        if is_over(now):
            return now
        unknown_since = (unknown_since or time.monotonic()) if now.state == "unknown" else None
        if unknown_since and time.monotonic() - unknown_since > _UNKNOWN_FOR_S:
            return now
        show(progress_line(now, rate.seconds_per_step(now.step)))
        time.sleep(SLURM_EVERY_S if now.job_id else LEDGER_EVERY_S)


def progress_line(now: RunStatus, seconds_per_step: float | None = None) -> str:
    """One line about a run: state, step, loss, speed, and when it should end."""
    parts: list[str] = [now.state]
    if now.step is not None:
        parts.append(f"step {now.step}/{now.steps}")
    if now.loss is not None:
        parts.append(f"loss {now.loss:.4f}")
    if now.tokens_per_s is not None:
        parts.append(f"{now.tokens_per_s:,.0f} tokens/s")
    if now.state == "running" and now.step is not None and seconds_per_step:
        left_s = (now.steps - now.step) * seconds_per_step
        parts.append(f"ends about {datetime.fromtimestamp(time.time() + left_s):%H:%M:%S}")
    if now.why:
        parts.append(now.why)
    return "  ".join(parts)


class _Rate:
    """Seconds per step since watching began."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def seconds_per_step(self, step: int | None) -> float | None:
        if step is None:
            return None
        if self._first is None:
            self._first = (time.monotonic(), step)
        began, first = self._first
        return (time.monotonic() - began) / (step - first) if step > first else None


def read_from(path: Path, position: int) -> bytes:
    """A file from a position to its end; nothing if there is no file yet."""
    try:
        with path.open("rb") as file:
            file.seek(position)
            return file.read()
    except FileNotFoundError:
        return b""
