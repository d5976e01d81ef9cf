"""What each rank reports when it has made no progress for too long: where it is, and which collectives it has entered.

One JSON file per rank in the attempt's folder of logs. The supervisor compares them and names who is waited for.
"""

import json
import os
import re
import sysconfig
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..config.rundir import RunDir


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """An operation that a rank is in."""

    channel: str
    """The same on all ranks that take part: a group's name, or `group:source>target`."""
    name: str
    """The group in words."""
    ranks: list[int]
    """Who takes part: a group's ranks, or source and target."""
    sequence: int
    """The how-maniest of its channel, from 1."""
    operation: str

    @property
    def peer_to_peer(self) -> bool:
        """One rank sends to another."""
        return ">" in self.channel


@dataclass(frozen=True, kw_only=True)
class Entered:
    """How many operations of a channel a rank has entered, and the last of them by name."""

    count: int
    recent: list[str]

    def operation(self, sequence: int) -> str | None:
        """Name of the operation with this number; None if it is not known, or not entered."""
        place = sequence - 1 - (self.count - len(self.recent))
        return self.recent[place] if 0 <= place < len(self.recent) else None


@dataclass(frozen=True, kw_only=True)
class HangReport:
    """One rank's report."""

    rank: int
    host: str
    phase: str
    """`step`, `save`, ..."""
    step: int
    """Last finished step."""
    idle_s: float
    """Seconds without progress."""
    where: str
    """Where its main thread is: function, file and line."""
    waiting: list[Waiting]
    entered: dict[str, Entered]
    silent: dict[int, str] = field(default_factory=dict)
    """State in /proc of each rank of this host that has not reported: T is stopped, D is in the kernel."""
    time: float = field(default_factory=time.time)


def write_report(run_dir: RunDir, attempt: int, report: HangReport) -> None:
    """Leave a report, whole or not at all."""
    path = run_dir.hang_report(attempt, report.rank)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(asdict(report)), encoding="utf-8")
    beside.replace(path)


def reported_ranks(run_dir: RunDir, attempt: int) -> set[int]:
    """Ranks that have left a report."""
    names = os.listdir(run_dir.attempt_logs(attempt))  # makes NFS look again
    return {int(match.group(1)) for name in names if (match := re.fullmatch(r"hang-(\d{5})\.json", name))}


def read_reports(run_dir: RunDir, attempt: int) -> dict[int, HangReport]:
    """Reports by rank; one that cannot be read counts as none."""
    reports = {}
    for path in sorted(run_dir.attempt_logs(attempt).glob("hang-*.json")):
        try:
            report = _parse(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError):
            continue
        reports[report.rank] = report
    return reports


def _parse(record: dict[str, Any]) -> HangReport:
    record["waiting"] = [Waiting(**waiting) for waiting in record["waiting"]]
    record["entered"] = {channel: Entered(**entered) for channel, entered in record["entered"].items()}
    record["silent"] = {int(rank): state for rank, state in record["silent"].items()}
    return HangReport(**record)


def is_plumbing(file: str) -> bool:
    """Python's own library, torch, and our own record of collectives: not where a reader looks for a cause."""
    own = file.endswith(("parallelism/collectives.py", "parallelism/ranks.py"))
    library = file.startswith((sysconfig.get_path("stdlib"), "<frozen")) and "site-packages" not in file
    return own or library or "/site-packages/torch/" in file


def where_in_dump(text: str) -> str:
    """Where the main thread was, by faulthandler's last dump in `text`; empty if there is none."""
    main_thread = text.rpartition("Timeout (")[2].rpartition("Thread 0x")[2]
    frames = re.findall(r'File "(.+)", line (\d+) in (\S+)', main_thread)
    best = next((frame for frame in frames if not is_plumbing(frame[0])), frames[0] if frames else None)
    return f"{best[2]} ({Path(best[0]).name}:{best[1]})" if best else ""


def ranks_text(ranks: "Mapping[int, Any] | set[int] | list[int]") -> str:
    """`rank 2`, `ranks 0, 3-5`."""
    return f"rank{'s' if len(ranks) > 1 else ''} {numbers_text(ranks)}"


def numbers_text(numbers: "Mapping[int, Any] | set[int] | list[int]") -> str:
    """`0, 3-5`."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][-1] + 1:
            spans[-1] = [spans[-1][0], number]
        else:
            spans.append([number])
    parts = []
    for span in spans:
        parts += [f"{span[0]}-{span[-1]}"] if span[-1] - span[0] > 1 else [str(each) for each in span]
    return ", ".join(parts)
