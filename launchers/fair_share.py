"""Where this user's jobs stand in the queue: fair share by sshare, priority by sprio, where the site has them."""

import os
import pwd
from dataclasses import dataclass

from ..config.cluster import ClusterConfig
from .cluster_limits import reached
from .slurm import Slurm, SlurmUnreachable

_MULTIFACTOR = "priority/multifactor"
_SHARE_FIELDS = "Account,User,NormShares,EffectvUsage,FairShare"
_FACTORS = {"A": "age", "F": "fair share", "J": "job size", "P": "partition", "Q": "QOS", "N": "nice"}
"""sprio's letters of the weighted factors, and what they are."""


@dataclass(frozen=True, kw_only=True)
class FairShare:
    """What sshare says of this user in one account."""

    account: str
    fair_share: float
    """From 0 to 1: the higher, the earlier jobs start."""
    shares: float | None
    """This user's part of its parent's shares, from 0 to 1."""
    usage: float | None
    """This user's part of what was used lately, from 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Priority:
    """What sprio says of one waiting job."""

    total: int
    factors: dict[str, int]
    """What adds up to it, by name; without those that are 0."""


def read_share(cluster: ClusterConfig) -> FairShare | None:
    """This user's fair share in the account that a job is charged to; None where priorities do not depend on it."""
    facts = reached(cluster)
    if facts is None or not facts.keeps_accounts or facts.config.get("PriorityType") != _MULTIFACTOR:
        return None
    name = pwd.getpwuid(os.geteuid()).pw_name
    command = ["sshare", "--noheader", "--parsable2", f"--users={name}", f"--format={_SHARE_FIELDS}"]
    if cluster.account:
        command.append(f"--accounts={cluster.account}")
    try:
        return parse_share(Slurm(cluster).answer(command), name)
    except SlurmUnreachable:
        return None


def read_priority(cluster: ClusterConfig, job_id: str) -> Priority | None:
    """Why a waiting job has the place that it has; None where priorities are plain, or sprio is missing."""
    letters = "|".join(f"%{letter}" for letter in ("Y", *_FACTORS))
    try:
        text = Slurm(cluster).answer(["sprio", "--noheader", f"--jobs={job_id}", f"--format={letters}"])
    except SlurmUnreachable:  # or there is no sprio, or another plugin of which it says nothing
        return None
    return parse_priority(text)


def parse_share(text: str, user: str) -> FairShare | None:
    """The first line of `sshare --parsable2` that is about the user; accounts above it have no user."""
    for line in text.splitlines():
        words = [word.strip() for word in line.split("|")]
        if len(words) == 5 and words[1] == user and _number(words[4]) is not None:
            share = _number(words[4]) or 0.0
            return FairShare(account=words[0], fair_share=share, shares=_number(words[2]), usage=_number(words[3]))
    return None


def parse_priority(text: str) -> Priority | None:
    """One line of sprio with its factors in the order of ours; of a job in several partitions the highest."""
    found = []
    for line in text.splitlines():
        numbers = [_number(word) for word in line.split("|")]
        if len(numbers) == 1 + len(_FACTORS) and numbers[0] is not None:
            pairs = zip(_FACTORS.values(), numbers[1:], strict=True)
            found.append(Priority(total=int(numbers[0]), factors={name: int(value) for name, value in pairs if value}))
    return max(found, key=lambda priority: priority.total, default=None)


def share_text(share: FairShare) -> str:
    """For people."""
    known = {"shares": share.shares, "used": share.usage}
    parts = ", ".join(f"{what} {value:.1%}" for what, value in known.items() if value is not None)
    return f"{share.fair_share:.3f} of 1 in account {share.account}" + (f" ({parts})" if parts else "")


def priority_text(priority: Priority) -> str:
    """For people."""
    parts = " + ".join(f"{name} {value}" for name, value in priority.factors.items())
    return f"{priority.total}" + (f" = {parts}" if parts else "")


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
