"""The ledger: what happened to a run, one JSON-lines file per writer and attempt, merged by time when read.

No two processes append to one file, so it is safe on NFS. Events: submit, start, nodes, signal, save, commit, cause,
requeue, verdict, exit, cancel, bad_chunk, preflight, followers.
"""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.rundir import RunDir


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of the ledger: seconds since the epoch, event name, writer, attempt, and the event's own fields."""

    time: float
    event: str
    writer: str
    attempt: int
    fields: dict[str, Any] = field(default_factory=dict)


class LedgerWriter:
    """Appends the events of one writer (`submit`, `supervisor`, `rank-00000`) in one attempt."""

    def __init__(self, run: RunDir, attempt: int, writer: str) -> None:
        self._path = run.ledger_file(attempt, writer)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, event: str, **fields: Any) -> None:
        """Append one event; it is on disk when this returns."""
        line = json.dumps({"time": time.time(), "event": event, **fields}) + "\n"
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def read_ledger(run: RunDir) -> list[Event]:
    """All events of a run, by time. A torn last line (a killed writer) is left out."""
    events = [event for path in run.ledger.glob("*/*.jsonl") for event in _read_file(path)]
    return sorted(events, key=lambda event: event.time)


def _read_file(path: Path) -> list[Event]:
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            events.append(
                Event(
                    time=record.pop("time"),
                    event=record.pop("event"),
                    writer=path.stem,
                    attempt=int(path.parent.name),
                    fields=record,
                )
            )
        except (ValueError, KeyError, AttributeError, TypeError):
            continue
    return events
