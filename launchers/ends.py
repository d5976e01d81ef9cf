"""Why an attempt ended: pure, from verdicts, srun's words, Slurm's words and what the batch script caught."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from ..config.verdicts import DISK_REFUSED, DO_NOT_RESTART, HUNG, SAVED, UNHEALTHY
from .scontrol import JobDetails

Cause = Literal[
    "finished",
    "cancelled",
    "mistake",
    "time limit",
    "preemption",
    "asked",
    "node failure",
    "unhealthy node",
    "hang",
    "full disk",
    "crash",
]

LIMIT = "LIMIT"
"""Stands for a signal where the batch script itself ended the ranks, shortly before the time limit."""

TERMINATED = ("Terminated", "User defined signal 2")
# srun: error: node1: tasks 1,3: Killed      controller: error: laptop: task 0: Exited with exit code 93
_TASK_ENDED = re.compile(r"^(?:srun|controller): error: (\S+): tasks? ([\d,-]+): (.+)$", re.MULTILINE)
# slurmstepd-node1: error: *** JOB 3 ON node1 CANCELLED AT 2026-11-24T06:01:57 DUE TO TIME LIMIT ***
# Without DUE TO, a step may have been ended by srun since one of its ranks had failed; a whole job, only by scancel.
_SLURM_ENDED = re.compile(
    r"error: \*\*\* (?:(?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+ DUE TO ([A-Z ]+?)"
    r"|JOB \S+ ON \S+ CANCELLED AT \S+) \*\*\*"
)
# srun: error: Node failure on node2
_NODE_FAILED = re.compile(r"^srun: error: Node failure on (\S+)", re.MULTILINE)
_CLOSE_S = 150.0  # Slurm may send the warning signal a minute early, and a save takes its time


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The rank that failed first, where, and how in srun's words."""

    rank: int
    host: str
    how: str


@dataclass(frozen=True, kw_only=True)
class EndFacts:
    """What is known of the end of one attempt."""

    step_code: int
    """srun's exit code: the largest of the ranks'."""
    verdicts: Mapping[int, int]
    """Verdict by rank, of those that gave one."""
    world_size: int
    batch_log: str = ""
    signal: str = ""
    """Name of the first signal that the batch script caught (TERM, USR2), or LIMIT."""
    message: str = ""
    """Why the ranks were not started at all."""
    job: JobDetails | None = None
    cancelled: bool = False
    """`trainwright cancel` was called."""
    now: float = 0.0
    """When it ended, seconds since the epoch."""
    at_limit: bool = field(default=False)
    """The ranks saved since the time limit was near."""


def cause_of(facts: EndFacts) -> Cause:
    """Why it ended. What Slurm says comes first, then the ranks, then the signal."""
    given = facts.verdicts
    if len(given) == facts.world_size and not any(given.values()):
        return "finished"
    reason = slurm_reason(facts.batch_log)
    state = facts.job.state if facts.job else ""
    if facts.cancelled or state == "CANCELLED" or reason == "cancelled":
        return "cancelled"
    if facts.message:
        return "crash"
    if failed_nodes(facts.batch_log) or reason == "node failure" or state == "NODE_FAIL":
        return "node failure"
    own = _by_verdicts(facts)
    if own is not None:
        return own
    if (facts.job and facts.job.preempted) or reason == "preemption" or state == "PREEMPTED":
        return "preemption"
    if facts.at_limit or facts.signal == LIMIT or reason == "time limit" or state == "TIMEOUT" or _near_limit(facts):
        return "time limit"
    if SAVED in given.values() or (facts.signal and _only_terminated(facts.batch_log)):
        return "asked"
    return "crash"


def _by_verdicts(facts: EndFacts) -> Cause | None:
    """What a rank that gave a verdict knew better than anybody; None if none did."""
    codes = set(facts.verdicts.values())
    if DO_NOT_RESTART in codes:
        return "mistake"
    if UNHEALTHY in codes:
        return "unhealthy node"
    if HUNG in codes:  # others may have crashed since, when those that waited had left
        return "hang"
    if DISK_REFUSED in codes:
        return "full disk"
    return None


def _near_limit(facts: EndFacts) -> bool:
    """The script caught a signal, and the time limit is what Slurm sends one for just then."""
    if not facts.signal or facts.job is None or facts.job.ends_at is None:
        return False
    return facts.job.ends_at - facts.now < _CLOSE_S


def _only_terminated(batch_log: str) -> bool:
    return all(how in TERMINATED for _, _, how in _TASK_ENDED.findall(batch_log))


def code_of(facts: EndFacts, failure: Failure | None) -> int:
    """Exit code of the attempt: a verdict counts before the step's code, which is only the largest of the ranks'."""
    given = facts.verdicts
    if failure and given.get(failure.rank):
        return given[failure.rank]
    bad = [code for code in given.values() if code]
    if facts.step_code == 0:
        return max(bad, default=0)
    return facts.step_code


def first_failure(batch_log: str) -> Failure | None:
    """The first rank that srun or the controller said had failed, by what they wrote in the batch log."""
    ends = _TASK_ENDED.findall(batch_log)
    if not ends:
        return None
    # Ranks that were ended because another failed are "Terminated"; the cause comes before them, or is the only kind.
    host, ranks, how = next((end for end in ends if end[2] not in TERMINATED), ends[0])
    return Failure(rank=_ranks(ranks)[0], host=host, how=how.strip())


def codes_by_srun(batch_log: str) -> dict[int, int]:
    """Exit code of each rank that ended with one of the codes above, for ranks that could not leave a verdict."""
    codes = {}
    for _, ranks, how in _TASK_ENDED.findall(batch_log):
        said = re.fullmatch(r"Exited with exit code (\d+)", how.strip())
        if said and int(said.group(1)) in (SAVED, UNHEALTHY, HUNG, DISK_REFUSED, DO_NOT_RESTART):
            codes.update(dict.fromkeys(_ranks(ranks), int(said.group(1))))
    return codes


def _ranks(text: str) -> list[int]:
    """`1,4-6` as numbers."""
    numbers: list[int] = []
    for item in text.split(","):
        first, _, last = item.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def failed_nodes(batch_log: str) -> list[str]:
    """Nodes that srun said had failed."""
    return list(dict.fromkeys(host.rstrip(",:") for host in _NODE_FAILED.findall(batch_log)))


def words_since(batch_log: str, began: float) -> str:
    """Lines in which Slurm says that it ended the job, at `began` (seconds since the epoch) or later."""
    lines = (match for match in _SLURM_ENDED.finditer(batch_log))
    return "".join(f"{match.group()}\n" for match in lines if _when(match.group()) >= int(began))


def _when(line: str) -> float:
    """Slurm prints local time without a zone."""
    found = re.search(r"CANCELLED AT (\S+)", line)
    return datetime.fromisoformat(found.group(1)).timestamp() if found else 0.0


def slurm_reason(batch_log: str) -> str | None:
    """Why Slurm ended the job, by the batch log: `cancelled`, `time limit`, `preemption`, ...; None if it did not."""
    ended = _SLURM_ENDED.findall(batch_log)
    return None if not ended else (ended[-1] or "cancelled").lower()
