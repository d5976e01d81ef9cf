"""Which process of a job gets which signal, and when SIGKILL comes: told from a cluster's configuration.

What Slurm does is read from its source (22.05 to 25.11): src/slurmd/slurmd/req.c (`_rpc_terminate_job`,
`_rpc_timelimit`), src/slurmctld/job_mgr.c (`job_time_limit`, `send_job_warn_signal`), preempt.c
(`_job_check_grace_internal`) and the proctrack plugins; a canary job shows whether a cluster does so.
"""

from dataclasses import dataclass

from ..cluster_config import ClusterFacts, Partition
from ..user_limits import UserLimits

PROCESSES = ("batch", "rank", "child", "detached")
"""The batch shell; a rank; what a rank forks, such as a data worker; what a rank forks into a session of its own."""
EVENTS = {
    "step_signal": "scancel --signal=USR2 JOB.0",
    "lead_signal": "--signal=B:USR2@LEAD, before the time limit",
    "time_limit": "the time limit",
    "cancel": "scancel JOB",
    "preemption": "preemption of a job with --signal=B:USR2@LEAD",
}
PERIOD_S = 30
"""Slurm looks at time limits and grace times this often (PERIODIC_TIMEOUT in slurmctld.h)."""
Window = tuple[float, float]
"""Earliest and latest time, in seconds after the event's first signal to any process."""
_NOW: Window = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What one kind of process gets at one event."""

    event: str
    process: str
    signals: dict[str, Window]
    """When each signal comes first."""
    kill: Window | None
    """When SIGKILL comes; None: it does not, and the process goes on."""


def predict(facts: ClusterFacts, partition: Partition, limits: UserLimits, qos: str = "") -> list[Delivery]:
    """The delivery matrix of jobs in a partition; events that never come, or are not known, are absent."""
    tracking = _tracking(facts)
    if tracking is None:
        return []
    found: list[Delivery] = []
    for event in EVENTS:
        for process in PROCESSES:
            reached, killed = tracking[process]
            signals = _signals(event, process, facts, _grace(facts, partition, limits, qos))
            if signals is None:
                continue
            kill = _kill(event, facts, _grace(facts, partition, limits, qos)) if killed else None
            found.append(Delivery(event=event, process=process, signals=signals if reached else {}, kill=kill))
    return found


def can_be_preempted(facts: ClusterFacts, partition: Partition) -> bool:
    """Whether jobs of this partition can be pushed off their nodes by removal: as far as partitions alone say it."""
    kind = facts.config.get("PreemptType", "preempt/none")
    mode = partition.words.get("PreemptMode", facts.config.get("PreemptMode", "OFF"))
    if kind == "preempt/qos":
        return "OFF" not in facts.config.get("PreemptMode", "OFF").upper()
    if kind != "preempt/partition_prio" or mode.upper() == "OFF":
        return False
    return any(other.priority_tier > partition.priority_tier for other in facts.partitions)


def preempt_mode(facts: ClusterFacts, partition: Partition) -> str:
    """REQUEUE, CANCEL, SUSPEND or OFF, perhaps with GANG."""
    return partition.words.get("PreemptMode", facts.config.get("PreemptMode", "OFF")).upper()


def save_time_s(facts: ClusterFacts, partition: Partition, limits: UserLimits, qos: str = "") -> float:
    """Seconds that a preempted job surely has between the first signal that it gets and SIGKILL."""
    return (_grace(facts, partition, limits, qos) or 0) + facts.kill_wait_s


def _tracking(facts: ClusterFacts) -> dict[str, tuple[bool, bool]] | None:
    """Whether each process is reached by signals to its step, and whether SIGKILL finds it; None: not known."""
    kind = facts.config.get("ProctrackType", "").rpartition("/")[2]
    always = (True, True)
    if kind == "linuxproc":  # all descendants
        return dict.fromkeys(PROCESSES, always)
    if kind == "pgid":  # the process group, which a new session has left
        return {"batch": always, "rank": always, "child": always, "detached": (False, False)}
    if kind == "cgroup":  # slurmstepd's own children; SIGKILL finds all of the cgroup
        others = (facts.signals_children, True)
        return {"batch": always, "rank": always, "child": others, "detached": others}
    return None


def _grace(facts: ClusterFacts, partition: Partition, limits: UserLimits, qos: str) -> int | None:
    """Grace time in seconds of a preempted job; None where jobs are not removed, or their QOS is not known."""
    if not can_be_preempted(facts, partition) or "SUSPEND" in preempt_mode(facts, partition):
        return None
    if facts.config.get("PreemptType") == "preempt/qos":
        return (limits.qos_grace_s or {}).get(qos or "normal")
    return partition.grace_s


def _signals(event: str, process: str, facts: ClusterFacts, grace_s: int | None) -> dict[str, Window] | None:
    """What would reach a process if its step's signals do; None: the event is not predicted."""
    batch = process == "batch"
    if event == "step_signal":
        return {} if batch else {"USR2": _NOW}
    if event == "lead_signal":
        return {"CONT": _NOW, "USR2": _NOW} if batch else {}
    if event in ("cancel", "time_limit"):
        return {"CONT": _NOW, "TERM": _NOW}
    if grace_s is None:
        return None
    told = {"CONT": _NOW, "USR2": _NOW} if facts.user_signal_at_preemption and batch else {}
    if not grace_s:
        return {"CONT": _NOW, "TERM": _NOW, **told}
    over = (float(grace_s), float(grace_s + PERIOD_S))
    if facts.user_signal_at_preemption:
        return {"CONT": over, "TERM": over, **told}
    # Without the user signal the steps are told by SIGTERM; the batch shell hears of it when the grace time is over.
    return {"CONT": over, "TERM": over} if batch else {"CONT": _NOW, "TERM": _NOW}


def _kill(event: str, facts: ClusterFacts, grace_s: int | None) -> Window | None:
    if event in ("step_signal", "lead_signal"):
        return None
    wait = float(facts.kill_wait_s)
    if event == "preemption" and grace_s:
        return (grace_s + wait, grace_s + PERIOD_S + wait)
    return (wait, wait)
