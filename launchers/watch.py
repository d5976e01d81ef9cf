"""Watching runs from outside their jobs, for what a job cannot do itself when its batch host is dead.

Slurm requeues such a job and holds it back for two minutes, or for ever if a node could not start it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..config.cluster import ClusterConfig
from ..config.rundir import RunDir
from ..tracking.ledger import read_ledger
from .scontrol import ControlRefused, JobControl
from .slurm import JobInfo, Slurm

_HELD_BY_SLURM = ("launch failed requeued held", "JobHoldMaxRequeue")


@dataclass(frozen=True, kw_only=True)
class Step:
    """What was done for one job, in words."""

    job_id: str
    done: str


def what_to_do(job: JobInfo) -> str:
    """`start`, `release` or nothing, for a job that waits."""
    if job.state not in ("PENDING", "REQUEUE_HOLD", "REQUEUED", "SPECIAL_EXIT"):
        return ""
    reason = job.reason.replace("_", " ")
    if any(words.replace("_", " ").lower() in reason.lower() for words in _HELD_BY_SLURM):
        return "release"
    return "start" if reason == "BeginTime" else ""


def waits_on_purpose(run: RunDir) -> bool:
    """Whether the run's supervisor wants its job to start later than now."""
    wanted = [event.fields.get("not_before", 0.0) for event in read_ledger(run) if event.event == "requeue"]
    return bool(wanted) and wanted[-1] > time.time()


def look(cluster: ClusterConfig, job_ids: Sequence[str]) -> list[Step]:
    """Look at jobs of one cluster in one call, and start or release those that Slurm holds back.

    Raises SlurmUnreachable if it does not answer.
    """
    slurm = Slurm(cluster)
    steps = []
    for job_id, job in slurm.jobs(job_ids).items():
        wanted = what_to_do(job)
        if not wanted:
            continue
        control = JobControl(slurm, job_id, patience_s=0)
        try:
            if wanted == "release":
                control.release()
            control.update(StartTime="now")
            done = "released" if wanted == "release" else "started now instead of later"
        except ControlRefused as refused:
            done = f"Slurm refused: {refused}"
        steps.append(Step(job_id=job_id, done=done))
    return steps
