"""What runs the ranks of a job on this machine, and outlives the shell that submitted it.

    python -m trainwright.launchers.local_controller ORDER

ORDER is a JSON object: folder (Submitit's), logs, tasks, imports (modules that every rank needs), on_end (argv that is
told the exit code), time_limit (Slurm's words) or null. The ranks are forks of this process, so that torch and
megatron-core are imported once and not once per rank. It says in the log what srun would say: one reader serves both.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .forked_rank import ForkedRank, import_once

GRACE_S = 5.0
"""Seconds from SIGTERM, at which ranks save, to SIGKILL."""
_GRACE_AFTER_FAILURE_S = 0.5
"""The same for ranks that are left when one has failed: they wait for it, and never get to saving."""


def main(order: Mapping[str, Any]) -> int:
    """Run the ranks to their end and have the end recorded; the first failure's exit code, or 0."""
    controller = Controller(order)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, controller.catch)
    signal.signal(signal.SIGUSR2, controller.ask_to_save)
    controller.start()
    code = controller.wait()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the end is recorded, whoever asks again
    if order["on_end"]:
        told = [*order["on_end"], str(code), "--signal", controller.caught, "--message", controller.message]
        return subprocess.run(told, check=False).returncode
    return code


class Controller:
    """Starts one process per rank; if one fails, a signal comes or time is up, ends the others within seconds."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self._order = order
        self._ranks: list[ForkedRank] = []
        self._first_failure = 0
        self.caught = ""
        """Name of the signal that ended the job (TERM), or empty."""
        self.message = ""

    def catch(self, number: int, frame: object) -> None:
        """Signal handler."""
        self.caught = signal.Signals(number).name.removeprefix("SIG")

    def ask_to_save(self, number: int, frame: object) -> None:
        """Signal handler: every rank saves after its step and leaves, however long that takes."""
        for rank in self._ranks:
            rank.send_signal(number)
        if not self._ranks:  # there is nothing to save yet
            self.catch(number, frame)

    def start(self) -> None:
        """Start every rank with its stdout and stderr in its own log."""
        import_once(self._order["imports"])
        for rank in range(self._order["tasks"]):
            if self.caught:  # while modules were imported, which takes seconds
                return
            variables = {"LOCALID": str(rank), "GLOBALID": str(rank), "JOB_ID": str(os.getpid())}
            environment = {f"SUBMITIT_LOCAL_{name}": value for name, value in variables.items()}
            log = Path(self._order["logs"]) / f"{rank:05d}.log"
            self._ranks.append(ForkedRank(self._order["folder"], log, environment))

    def wait(self) -> int:
        """Until all ranks are gone; the first failure's exit code (128 + n for signal n), or 0."""
        limit_s = seconds(self._order["time_limit"])
        deadline = time.monotonic() + limit_s if limit_s else float("inf")
        seen: set[int] = set()
        while len(seen) < len(self._ranks):
            self._note_ended(seen)
            if time.monotonic() > deadline and not self.caught:
                self.caught, self.message = "TERM", f"time limit {self._order['time_limit']} reached"
                print(f"controller: {self.message}", flush=True)
            if self._first_failure or self.caught:
                self._end_rest()
                self._note_ended(seen)
            time.sleep(0.05)
        if not self._ranks:  # a signal came before the first was started
            return 128 + signal.SIGTERM
        return self._first_failure

    def _note_ended(self, seen: set[int]) -> None:
        for rank, process in enumerate(self._ranks):
            code = process.poll()
            if code is None or rank in seen:
                continue
            seen.add(rank)
            if code and not self._first_failure:
                self._first_failure = code if code > 0 else 128 - code
            if code:
                how = f"Exited with exit code {code}" if code > 0 else signal.strsignal(-code)
                print(f"controller: error: {socket.gethostname()}: task {rank}: {how}", flush=True)

    def _end_rest(self) -> None:
        grace_s = _GRACE_AFTER_FAILURE_S if self._first_failure and not self.caught else GRACE_S
        for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, GRACE_S)):
            for process in self._ranks:
                if process.poll() is None:
                    process.send_signal(number)
            deadline = time.monotonic() + patience_s
            while any(process.poll() is None for process in self._ranks) and time.monotonic() < deadline:
                time.sleep(0.05)


def seconds(time_limit: str | None) -> float | None:
    """A time limit in Slurm's words (M, M:S, H:M:S, D-H, D-H:M, D-H:M:S) in seconds."""
    if time_limit is None:
        return None
    days, dash, rest = time_limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, secs = (*parts, 0, 0)[:3]
        return float(((int(days) * 24 + hours) * 60 + minutes) * 60 + secs)
    if len(parts) < 3:
        parts = [0, *parts, 0][:3]
    return float((parts[0] * 60 + parts[1]) * 60 + parts[2])


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
