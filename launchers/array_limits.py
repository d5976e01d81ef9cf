"""How many jobs a cluster takes at once: tasks of one array, and jobs of this user."""

import os
import pwd
import re

from ..config.cluster import ClusterConfig
from ..config.errors import UserError
from .cluster_config import ClusterFacts
from .cluster_limits import read_facts
from .slurm import Slurm, SlurmUnreachable
from .user_limits import UserLimits, read_user_limits

_DEFAULT_ARRAY = 1001
_REMEDY = "sweep fewer values, or wait until jobs have ended"


def tasks_per_array(cluster: ClusterConfig) -> int:
    """Tasks that one array may have: MaxArraySize, and max_array_tasks where the site has set it."""
    facts = read_facts(cluster, Slurm(cluster))
    return _DEFAULT_ARRAY if facts is None else array_size(facts)


def array_size(facts: ClusterFacts) -> int:
    """The same from what is known of a cluster."""
    size = facts.number("MaxArraySize", _DEFAULT_ARRAY)
    fewer = re.search(r"max_array_tasks=(\d+)", facts.config.get("SchedulerParameters", ""))
    return max(1, min(size, int(fewer.group(1)) if fewer else size))


def require_room(cluster: ClusterConfig, jobs: int) -> None:
    """Raise UserError naming the limit if this user may not have so many more jobs in the queue.

    Where Slurm or its accounting does not answer, nothing is checked; sbatch has the last word.
    """
    slurm = Slurm(cluster)
    facts = read_facts(cluster, slurm)
    if facts is None:
        return
    check_job_count(facts, jobs)
    enforced = facts.config.get("AccountingStorageEnforce", "").lower()
    if not any(word in enforced for word in ("limits", "safe", "all")):
        return
    try:
        limits = read_user_limits(slurm, facts)
        if limits.qos_max_submit or limits.of_account:
            check_room(cluster, limits, jobs, _in_queue(slurm))
    except SlurmUnreachable:
        return


def check_job_count(facts: ClusterFacts, jobs: int) -> None:
    """More jobs than the controller keeps can never be queued; raises UserError."""
    most = facts.number("MaxJobCount", 10000)
    if jobs > most:
        raise UserError("sweep", f"{jobs} runs, but MaxJobCount of this cluster is {most}", "sweep fewer values")


def check_room(cluster: ClusterConfig, limits: UserLimits, jobs: int, queued: list[tuple[str, str]]) -> None:
    """By the limits of the account and of the QOS; `queued` is account and QOS of each job that the user has."""
    account = cluster.account or limits.default_account
    words = re.search(r"MaxSubmit=(\d+)", (limits.of_account or {}).get(account, ""))
    if words:
        have = sum(name.lower() == account.lower() for name, _ in queued)
        _require(f"MaxSubmitJobs of account {account}", int(words.group(1)), have, jobs)
    qos = cluster.qos or (limits.qos[0] if len(limits.qos) == 1 else "")
    most = (limits.qos_max_submit or {}).get(qos)
    if most is not None:
        have = sum(name.lower() == qos.lower() for _, name in queued)
        _require(f"MaxSubmitJobsPerUser of QOS {qos}", most, have, jobs)


def _require(what: str, most: int, have: int, jobs: int) -> None:
    if have + jobs > most:
        raise UserError("sweep", f"{jobs} runs, but {what} is {most}, and you have {have} jobs in the queue", _REMEDY)


def _in_queue(slurm: Slurm) -> list[tuple[str, str]]:
    name = pwd.getpwuid(os.geteuid()).pw_name
    lines = slurm.answer(["squeue", "--noheader", "--array", f"--user={name}", "--format=%a|%q"]).splitlines()
    return [(account, qos) for account, _, qos in (line.strip().partition("|") for line in lines)]
