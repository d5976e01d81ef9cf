"""Putting a job back into the queue from its own batch script, away from nodes that were found bad.

A requeued job is held back for two minutes by Slurm (it sets a later start time when the script has ended), unless its
start time lies in the future by then. So it is set a few seconds ahead, which the job's owner may do.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..config.cluster import ClusterConfig
from ..config.rundir import RunDir
from ..tracking.ledger import LedgerWriter, read_ledger
from .ends import Cause
from .scontrol import ControlRefused, JobControl, host_list
from .slurm import expand_hosts

START_IN_S = 5
"""Seconds for the batch script to end."""
_PAUSE_S = 120
"""What Slurm itself takes."""


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """A node that is kept from a run, why, and until when (seconds since the epoch)."""

    host: str
    reason: str
    until: float


def exclude(ledger: LedgerWriter, hosts: Sequence[str], reason: str, hours: float) -> None:
    """Add nodes to the run's journal of exclusions."""
    for host in hosts:
        ledger.write("exclude", host=host, reason=reason, until=time.time() + hours * 3600)


def exclusions(run: RunDir) -> list[Exclusion]:
    """Nodes that are kept from this run now; the newest entry of each host counts."""
    return [entry for entry in _journal(run) if entry.until > time.time()]


def kept_away(run: RunDir, cluster: ClusterConfig) -> list[str]:
    """Hosts that this run's job may not have now: those of cluster.exclude, and those of the journal."""
    return [*expand_hosts(cluster.exclude or ""), *(entry.host for entry in exclusions(run))]


def may_have_again(run: RunDir) -> list[str]:
    """Hosts of the journal whose time is over; a job may still be without them."""
    return [entry.host for entry in _journal(run) if entry.until <= time.time()]


def _journal(run: RunDir) -> list[Exclusion]:
    newest = {
        event.fields["host"]: Exclusion(
            host=event.fields["host"], reason=event.fields["reason"], until=event.fields["until"]
        )
        for event in read_ledger(run)
        if event.event == "exclude"
    }
    return [*newest.values()]


def start_in_s(run: RunDir, attempt: int, cause: Cause) -> int:
    """Seconds until a job may start again: two minutes after a crash before the first step.

    What ended the ranks may be there still. It may be Slurm itself: a node that answered late is ordered once more,
    up to a minute later, to end the job of that number, which is the next attempt then.
    """
    metrics = run.metrics(attempt)
    stepped = metrics.is_file() and metrics.stat().st_size > 0
    return START_IN_S if stepped or cause != "crash" else _PAUSE_S


def requeue(control: JobControl, excluded: Sequence[str], seconds: int) -> str:
    """Requeue the job, to start after so many seconds; an empty string, or what Slurm said against it.

    Slurm may have requeued it already, after a preemption or with a failed node: then only the start time and the
    nodes are left to set.
    """
    try:
        control.requeue()
    except ControlRefused as refused:
        before = control.details()
        if before is None or not before.requeues or before.state in ("CANCELLED", "COMPLETED"):
            return str(refused)
    try:
        control.update(ExcNodeList=host_list(excluded))  # also of none: earlier ones may be over
        control.update(StartTime=f"now+{seconds}seconds")
    except ControlRefused as refused:  # it starts nevertheless, later or there
        return f"requeued, but {refused}"
    return ""
