"""Watching runs from outside their jobs, for what a job cannot do itself when its batch host is dead.

Slurm requeues such a job and holds it back for two minutes, or for ever if a node could not start it.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from ..config.cluster import ClusterConfig
from ..config.rundir import RunDir
from ..tracking.ledger import read_ledger
from .healing import kept_away, may_have_again
from .scontrol import ControlRefused, JobControl, host_list
from .slurm import JobInfo, Slurm

_WAITS = ("PENDING", "REQUEUE_HOLD", "REQUEUED", "SPECIAL_EXIT")
_HELD_BY_SLURM = ("launch failed requeued held", "JobHoldMaxRequeue")


@dataclass(frozen=True, kw_only=True)
class Step:
    """What was done for one job, in words."""

    job_id: str
    done: str


def what_to_do(job: JobInfo) -> str:
    """`start`, `release` or nothing, for a job that waits."""
    if job.state not in _WAITS:
        return ""
    reason = job.reason.replace("_", " ")
    if any(words.replace("_", " ").lower() in reason.lower() for words in _HELD_BY_SLURM):
        return "release"
    return "start" if reason == "BeginTime" else ""


def waits_on_purpose(run: RunDir) -> bool:
    """Whether the run's supervisor wants its job to start later than now."""
    wanted = [event.fields.get("not_before", 0.0) for event in read_ledger(run) if event.event == "requeue"]
    return bool(wanted) and wanted[-1] > time.time()


def look(cluster: ClusterConfig, runs: Mapping[str, RunDir]) -> list[Step]:
    """Look at jobs of one cluster in one call (job id -> run), and start or release those that Slurm holds back.

    A job that waits gets nodes back whose exclusion is over. Raises SlurmUnreachable if Slurm does not answer.
    """
    slurm = Slurm(cluster)
    steps = []
    for job_id, job in slurm.jobs([*runs]).items():
        if job.state in _WAITS:
            steps += _give_back(slurm, cluster, runs[job_id], job_id)
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


def _give_back(slurm: Slurm, cluster: ClusterConfig, run: RunDir, job_id: str) -> list[Step]:
    """Let the job have nodes again whose exclusion is over; its supervisor does so only when it requeues."""
    over = set(may_have_again(run))
    if not over:
        return []
    control = JobControl(slurm, job_id, patience_s=0)
    try:
        details = control.details()
        back = sorted(over & details.excluded) if details else []
        if not back:
            return []
        control.update(ExcNodeList=host_list(kept_away(run, cluster)))
    except ControlRefused as refused:
        return [Step(job_id=job_id, done=f"Slurm refused: {refused}")]
    return [Step(job_id=job_id, done=f"may have {', '.join(back)} again")]
