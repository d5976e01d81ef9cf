"""All logs of a run as one stream of lines: every rank, on from one attempt to the next, until the run has ended."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..config.loading import load_frozen
from ..config.rundir import RunDir
from ..tracking.ledger import read_ledger
from .follow import read_from

_BATCH = "batch"
_EVERY_S = 0.3
_STATUS_EVERY_S = 3.0  # it may ask Slurm


@dataclass(frozen=True, kw_only=True)
class Followed:
    """Which logs: of one rank or all, of one attempt or of all from the newest one on."""

    rank: int | None = None
    attempt: int | None = None


def follow_run(run: RunDir, what: Followed, is_over: Callable[[], bool]) -> Iterator[str]:
    """Whole lines with their newline, those of several ranks with `[rank] ` before each, as they are written.

    Goes on into the attempts that follow and ends when `is_over` (asked every few seconds), or, of one attempt, when
    that has ended.
    """
    attempt = what.attempt or run.attempts()[-1]
    while True:
        logs = _Logs(run, attempt, what.rank)
        yield from _until_ended(logs, is_over)
        later = [number for number in run.attempts() if number > attempt]
        if what.attempt is not None or not later:
            return
        attempt = later[0]


def _until_ended(logs: "_Logs", is_over: Callable[[], bool]) -> Iterator[str]:
    asked = 0.0
    while True:
        ended = logs.are_past()
        if not ended and time.monotonic() - asked > _STATUS_EVERY_S:
            ended, asked = is_over(), time.monotonic()
        lines = logs.new_lines(flush=ended)  # read after the question, so that nothing is missed
        yield from lines
        if ended:
            return
        if not lines:
            time.sleep(_EVERY_S)


class _Logs:
    """The logs of one attempt, and how far each has been read."""

    def __init__(self, run: RunDir, attempt: int, rank: int | None) -> None:
        self._run, self._attempt, self._rank = run, attempt, rank
        self._read: dict[Path, int] = {}
        self._torn: dict[Path, bytes] = {}
        self._width = len(str(load_frozen(run.attempt_yaml(attempt)).cluster.world_size - 1))
        self._is_named = False

    def are_past(self) -> bool:
        """Whether a later attempt has begun."""
        return self._run.attempts()[-1] > self._attempt

    def new_lines(self, flush: bool) -> list[str]:
        """What was written since, file after file; the last line of a file once it is whole, or with `flush`."""
        lines = [line for path in self._paths() for line in self._new_lines_of(path, flush)]
        if not lines or self._is_named:
            return lines
        self._is_named = True
        return [self._heading(), *lines] if self._attempt > 1 or self._rank is None else lines

    def _paths(self) -> list[Path]:
        if self._rank is not None:
            return [self._run.rank_log(self._attempt, self._rank)]
        return sorted(self._run.attempt_logs(self._attempt).glob("*.log"))

    def _new_lines_of(self, path: Path, flush: bool) -> list[str]:
        piece = read_from(path, self._read.get(path, 0))
        self._read[path] = self._read.get(path, 0) + len(piece)
        *whole, torn = (self._torn.get(path, b"") + piece).split(b"\n")
        if flush and torn:
            whole, torn = [*whole, torn], b""
        self._torn[path] = torn
        return [f"{self._prefix(path)}{line.decode(errors='replace')}\n" for line in whole]

    def _prefix(self, path: Path) -> str:
        if self._rank is not None:
            return ""
        return f"[{int(path.stem):{self._width}d}] " if path.stem.isdigit() else f"[{path.stem}] "

    def _heading(self) -> str:
        events = [event for event in read_ledger(self._run) if event.attempt == self._attempt]
        hosts = sorted({event.fields["host"] for event in events if event.event == "start"})
        where = f" on {', '.join(hosts)}" if hosts else ""
        return f"=== attempt {self._attempt}{where} ===\n"
