"""What this user may use of a cluster: accounts, QOS and limits, as sacctmgr and scontrol say them; parsing is pure."""

import os
import pwd
import re
import shutil
from dataclasses import dataclass

from .cluster_config import ClusterFacts, seconds_of
from .slurm import Slurm

_LIMITS = ("MaxJobs", "MaxSubmit", "MaxWall", "MaxTRES", "GrpTRES")


@dataclass(frozen=True, kw_only=True)
class UserLimits:
    """What the accounting database lets this user do; empty where there is none, or it does not answer."""

    accounts: tuple[str, ...] = ()
    qos: tuple[str, ...] = ()
    default_account: str = ""
    qos_grace_s: dict[str, int] | None = None
    """GraceTime of each QOS in seconds."""
    qos_max_submit: dict[str, int] | None = None
    """MaxSubmitJobsPerUser of each QOS that has one."""
    of_account: dict[str, str] | None = None
    """Limits of this user in each account, as `MaxJobs=20 MaxWall=2-00:00:00`; empty text where there is none."""


def read_user_limits(slurm: Slurm, facts: ClusterFacts) -> UserLimits:
    """Ask the accounting database, where there is one, for this user's accounts and QOS."""
    if not facts.keeps_accounts or not shutil.which("sacctmgr"):
        return UserLimits()
    quiet = ["sacctmgr", "--noheader", "--parsable2", "show"]
    name = pwd.getpwuid(os.geteuid()).pw_name
    mine = slurm.answer([*quiet, "associations", f"user={name}", f"format=Account,QOS,{','.join(_LIMITS)}"])
    default = slurm.answer([*quiet, "user", name, "format=DefaultAccount"])
    qos = slurm.answer([*quiet, "qos", "format=Name,GraceTime,MaxSubmitPU"])
    return parse_user_limits(mine, default, qos)


def read_known_names(slurm: Slurm, facts: ClusterFacts) -> UserLimits:
    """Accounts of this user and names of all QOS as the controller knows them: a tenth of the time that sacctmgr takes.

    Empty where accounts are not kept, or ordinary users may not ask.
    """
    if not facts.keeps_accounts:
        return UserLimits()
    name = pwd.getpwuid(os.geteuid()).pw_name
    words = ["scontrol", "--oneliner", "show", "assoc_mgr", f"users={name}", "flags=assoc,qos"]
    return parse_known_names(slurm.answer(words), name)


def parse_known_names(text: str, user: str) -> UserLimits:
    """`scontrol --oneliner show assoc_mgr`: association records and QOS records, one per line."""
    accounts = re.findall(rf"^ClusterName=\S+ Account=(\S+) UserName={re.escape(user)}\(", text, flags=re.MULTILINE)
    qos = re.findall(r"^QOS=([^(\s]+)\(", text, flags=re.MULTILINE)
    return UserLimits(accounts=tuple(dict.fromkeys(accounts)), qos=tuple(qos))


def parse_user_limits(associations: str, user: str, qos: str) -> UserLimits:
    """sacctmgr's lines without headers: `Account|QOS` and five limits, `DefaultAccount`, `Name|GraceTime|MaxSubmit`."""
    rows = [line.split("|") for line in associations.splitlines() if "|" in line]
    pairs = [(row[0], row[1]) for row in rows]
    each_qos = [[*line.split("|"), ""][:3] for line in qos.splitlines() if "|" in line]
    return UserLimits(
        accounts=tuple(dict.fromkeys(account for account, _ in pairs)),
        qos=tuple(dict.fromkeys(name for _, names in pairs for name in names.split(",") if name)),
        default_account=user.strip().split("\n")[0],
        qos_grace_s={name: seconds_of(grace) or 0 for name, grace, _ in each_qos},
        qos_max_submit={name: int(most) for name, _, most in each_qos if most.isdigit()},
        of_account={
            row[0]: " ".join(f"{name}={value}" for name, value in zip(_LIMITS, row[2:], strict=False) if value)
            for row in rows
        },
    )
