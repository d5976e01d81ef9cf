"""A job as its own batch script sees it: what `scontrol show job` says, requeueing it, changing it."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from .slurm import Slurm, SlurmUnreachable, expand_hosts

_PATIENCE_S = 180.0  # a controller that restarts is back by then
_GONE = "Invalid job id"


class ControlRefused(RuntimeError):
    """Slurm answered, and said no."""


@dataclass(frozen=True, kw_only=True)
class JobDetails:
    """One job by `scontrol show job`."""

    state: str
    """Slurm's word: RUNNING, COMPLETING, PENDING, PREEMPTED, TIMEOUT, CANCELLED, ..."""
    ends_at: float | None
    """Seconds since the epoch at which the time limit ends it; None without one."""
    preempted: bool
    """Another job has been given its nodes."""
    requeues: bool
    """Slurm may put it back into the queue."""
    excluded: frozenset[str] = frozenset()
    """Nodes that it may not have."""


class JobControl:
    """scontrol for one job. Every call waits for a controller that does not answer, up to three minutes."""

    def __init__(self, slurm: Slurm, job_id: str, patience_s: float = _PATIENCE_S) -> None:
        self._slurm, self._job_id, self._patience_s = slurm, job_id, patience_s

    def details(self) -> JobDetails | None:
        """None if Slurm does not know the job."""
        try:
            return parse_job(self._ask("show", "job", "--oneliner", self._job_id))
        except ControlRefused as refused:
            if _GONE in str(refused):
                return None
            raise

    def requeue(self) -> None:
        """Put the job back into the queue, which ends this attempt. Raises ControlRefused."""
        self._ask("requeue", self._job_id)

    def update(self, **fields: str) -> None:
        """Change fields by Slurm's names, such as StartTime. Raises ControlRefused."""
        self._ask("update", f"JobId={self._job_id}", *(f"{name}={value}" for name, value in fields.items()))

    def release(self) -> None:
        """Let a held job start. Raises ControlRefused."""
        self._ask("release", self._job_id)

    def _ask(self, *words: str) -> str:
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                done = self._slurm.ask(["scontrol", *words])
            except SlurmUnreachable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(2.0)
                continue
            if done.returncode:
                raise ControlRefused(" ".join((done.stderr or done.stdout).split()))
            return done.stdout


def parse_job(text: str) -> JobDetails:
    """The line that `scontrol show job --oneliner` prints, of Slurm 22.05 to 25.11."""
    return JobDetails(
        state=_value(text, "JobState") or "UNKNOWN",
        ends_at=_time(_value(text, "EndTime")),
        preempted=_time(_value(text, "PreemptTime")) is not None,
        requeues=_value(text, "Requeue") == "1",
        excluded=frozenset(expand_hosts(_value(text, "ExcNodeList") or "")),
    )


def host_list(hosts: Sequence[str]) -> str:
    """What ExcNodeList takes; of no hosts, what clears it."""
    return ",".join(dict.fromkeys(hosts))


def _value(text: str, key: str) -> str | None:
    found = re.search(rf"(?:^|\s){key}=(\S*)", text)
    value = found.group(1) if found else ""
    return None if value in ("", "(null)", "None", "Unknown", "N/A") else value


def _time(words: str | None) -> float | None:
    """Slurm prints local time without a zone."""
    if words is None:
        return None
    try:
        return datetime.fromisoformat(words).timestamp()
    except ValueError:
        return None
