"""Writes what is known in this rank when it hangs: a report for the supervisor, all stacks, torch's flight record."""

import faulthandler
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import IO

from ..config.rundir import RunDir
from ..tracking.hang_reports import Entered, HangReport, Waiting, is_plumbing, reported_ranks, write_report
from ..tracking.ledger import read_ledger

Operations = Callable[[Path], tuple[list[Waiting], dict[str, Entered]]]
"""The operations that this rank is in, and those that it has entered; torch's record goes into the file."""


class Reporter:
    """One rank's reports in one attempt."""

    def __init__(self, run_dir: RunDir, attempt: int, rank: int, world_size: int, operations: Operations) -> None:
        self._run_dir, self._attempt, self._rank, self._operations = run_dir, attempt, rank, operations
        self.world_size = world_size
        run_dir.attempt_logs(attempt).mkdir(mode=0o700, parents=True, exist_ok=True)
        self.stacks: IO[str] = run_dir.stacks(attempt, rank).open("a", encoding="utf-8")

    @property
    def words(self) -> str:
        """Where to read on."""
        return f"the stacks of all threads are in {self._run_dir.stacks(self._attempt, self._rank)}"

    def report(self, phase: str, step: int, idle_s: float, *, look_around: bool = False) -> None:
        """Leave a report; with `look_around` it says how those ranks of this host fare that have left none."""
        if not look_around:
            faulthandler.dump_traceback(self.stacks)
            self.stacks.flush()
        waiting, entered = self._operations(self._run_dir.flight_record(self._attempt, self._rank))
        report = HangReport(
            rank=self._rank,
            host=socket.gethostname(),
            phase=phase,
            step=step,
            idle_s=idle_s,
            where=where_now(),
            waiting=waiting,
            entered=entered,
            silent=self._silent_neighbours() if look_around else {},
        )
        write_report(self._run_dir, self._attempt, report)

    def reported(self) -> int:
        """How many ranks have left a report."""
        return len(reported_ranks(self._run_dir, self._attempt))

    def withdraw(self) -> None:
        """It goes on after all."""
        self._run_dir.hang_report(self._attempt, self._rank).unlink(missing_ok=True)

    def close(self) -> None:
        """The rank leaves; of stacks nothing stays if there was nothing to say."""
        self.stacks.close()
        path = self._run_dir.stacks(self._attempt, self._rank)
        if path.exists() and not path.stat().st_size:
            path.unlink()

    def _silent_neighbours(self) -> dict[int, str]:
        reported = reported_ranks(self._run_dir, self._attempt)
        return {
            event.fields["rank"]: _state_of(event.fields["pid"])
            for event in read_ledger(self._run_dir)
            if event.event == "start"
            and event.attempt == self._attempt
            and event.fields["host"] == socket.gethostname()
            and event.fields["rank"] not in reported
        }


def where_now() -> str:
    """Function, file and line of the main thread, leaving out Python's own library and torch."""
    ident = threading.main_thread().ident
    frame = sys._current_frames().get(ident or 0)
    frames = [each for each, _ in traceback.walk_stack(frame)] if frame else []
    best = next((each for each in frames if not is_plumbing(each.f_code.co_filename)), frames[0] if frames else None)
    return _place(best) if best else "unknown"


def _place(frame: FrameType) -> str:
    code = frame.f_code
    module = str(frame.f_globals.get("__name__", ""))
    return f"{module}.{code.co_qualname} ({Path(code.co_filename).name}:{frame.f_lineno})"


def _state_of(pid: int) -> str:
    """Letter of a process's state; empty if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]
