"""The attempts of one submission: each start of its job is one. Read from the ledger, and claimed at a start."""

import shutil
from collections.abc import Sequence

from ..config.rundir import RunDir
from ..tracking.ledger import Event
from .decision import Past


def claim(run: RunDir, first: int, restarts: int) -> int:
    """Number of the attempt that starts now: `first`, as submitted, or a new one if Slurm starts the job again."""
    if restarts == 0:
        return first
    attempt = run.next_attempt()
    shutil.copyfile(run.attempt_yaml(first), run.attempt_yaml(attempt))
    return attempt


def past_of(events: Sequence[Event], first: int) -> list[Past]:
    """Attempts from `first` on whose cause is known, in order."""
    of_submission = [event for event in events if event.attempt >= first]
    causes = {event.attempt: event.fields["cause"] for event in of_submission if event.event == "cause"}
    committed = {event.attempt for event in of_submission if event.event == "commit"}
    return [
        Past(attempt=attempt, cause=cause, committed=attempt in committed) for attempt, cause in sorted(causes.items())
    ]


def verdicts(events: Sequence[Event]) -> dict[int, int]:
    """Verdict code of each rank that gave one."""
    return {event.fields["rank"]: event.fields["code"] for event in events if event.event == "verdict"}


def began(events: Sequence[Event]) -> float:
    """When the attempt of these events began, seconds since the epoch; 0 if it never said so."""
    return min((event.time for event in events if event.event == "nodes"), default=0.0)


def submission_of(events: Sequence[Event], attempt: int) -> tuple[int, dict[str, object]]:
    """Number of the attempt that was submitted when this one started, and the fields of its `submit`; (attempt, {}) if
    nothing was recorded."""
    submitted = [event for event in events if event.event == "submit" and event.attempt <= attempt]
    if not submitted:
        return attempt, {}
    last = max(submitted, key=lambda event: event.attempt)
    return last.attempt, last.fields
