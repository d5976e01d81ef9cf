"""How a cluster is configured, as scontrol and sinfo of Slurm 22.05 to 25.11 say it; parsing is pure."""

import re
from dataclasses import dataclass
from pathlib import Path

from .slurm import TIMEOUT_S, Slurm

LEAST_KILL_WAIT_S = 5
"""A smaller KillWait counts as this one (`MAX(slurm_conf.kill_wait, 5)` in slurmd's req.c)."""
_GROUPS = "%R|%D|%c|%m|%G|%f|%T"


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One partition, with the words of `scontrol show partition` by name."""

    name: str
    words: dict[str, str]

    @property
    def is_default(self) -> bool:
        return self.words.get("Default") == "YES"

    @property
    def is_up(self) -> bool:
        return self.words.get("State", "UP") == "UP"

    @property
    def priority_tier(self) -> int:
        return int(self.words.get("PriorityTier", "1"))

    @property
    def grace_s(self) -> int:
        """GraceTime in seconds."""
        return int(self.words.get("GraceTime", "0"))

    @property
    def max_time_s(self) -> int | None:
        """MaxTime in seconds; None if there is none."""
        return seconds_of(self.words.get("MaxTime", "UNLIMITED"))

    def allows(self, what: str, name: str) -> bool:
        """Whether AllowAccounts, AllowQos (`what` is Accounts or Qos) and their Deny twins let `name` in."""
        allowed = self.words.get(f"Allow{what}", "ALL")
        denied = self.words.get(f"Deny{what}", "").lower().split(",")
        return (allowed == "ALL" or name.lower() in allowed.lower().split(",")) and name.lower() not in denied


@dataclass(frozen=True, kw_only=True)
class NodeGroup:
    """Nodes of a partition that are alike."""

    partition: str
    count: int
    cpus: int
    memory_mb: int
    gpus: dict[str, int]
    """GPUs per node by type; the type is "" where the site names none."""
    features: tuple[str, ...]
    state: str
    """Slurm's word, without marks such as `*`."""


@dataclass(frozen=True, kw_only=True)
class ClusterFacts:
    """All that was read of a cluster's configuration."""

    config: dict[str, str]
    """`scontrol show config`, names as Slurm writes them; empty values are ""."""
    partitions: list[Partition]
    nodes: list[NodeGroup]
    signals_children: bool = False
    """SignalChildrenProcesses of cgroup.conf, where this machine has the file; Slurm's default where not."""

    @property
    def version(self) -> str:
        return self.config.get("SLURM_VERSION", "unknown")

    def number(self, name: str, default: int) -> int:
        """A number of the configuration, such as `30 sec`."""
        found = re.match(r"\d+", self.config.get(name, ""))
        return int(found.group()) if found else default

    def line(self, name: str) -> str:
        """The line that shows a setting."""
        return f"{name} = {self.config.get(name) or '(null)'}"

    def partition(self, name: str | None) -> Partition | None:
        """A partition by name, or the default one."""
        fits = (part for part in self.partitions if (part.name == name if name else part.is_default))
        return next(fits, None)

    @property
    def kill_wait_s(self) -> int:
        """Seconds between SIGTERM and SIGKILL."""
        return max(self.number("KillWait", 30), LEAST_KILL_WAIT_S)

    @property
    def unreached_srun_s(self) -> int:
        """Seconds for which a node's stepd tries to tell an srun that cannot be reached that its ranks are gone: six
        times with TCPTimeout, and 2 s between (`_send_srun_resp_msg` in slurmstepd's mgr.c)."""
        return 6 * self.number("TCPTimeout", 2) + 2

    @property
    def keeps_accounts(self) -> bool:
        return self.config.get("AccountingStorageType", "").endswith("slurmdbd")

    @property
    def user_signal_at_preemption(self) -> bool:
        """Whether a preempted job gets the signal of its --signal, in the spelling of 22.05 or of newer Slurm."""
        old = "preempt_send_user_signal" in self.config.get("SlurmctldParameters", "").lower()
        return old or "send_user_signal" in self.config.get("PreemptParameters", "").lower()


def read_cluster(slurm: Slurm, timeout_s: float = TIMEOUT_S) -> ClusterFacts:
    """Ask the controller: one call each of `scontrol show config`, `scontrol show partition` and sinfo.

    Raises SlurmUnreachable if it does not answer.
    """
    config = slurm.answer(["scontrol", "show", "config"], timeout_s)
    partitions = slurm.answer(["scontrol", "--oneliner", "--all", "show", "partition"], timeout_s)
    nodes = slurm.answer(["sinfo", "--noheader", "--exact", f"--format={_GROUPS}"], timeout_s)
    settings = parse_config(config)
    return ClusterFacts(
        config=settings,
        partitions=parse_partitions(partitions),
        nodes=parse_nodes(nodes),
        signals_children=_signals_children(Path(settings.get("SLURM_CONF", "")).with_name("cgroup.conf")),
    )


def read_settings(slurm: Slurm) -> ClusterFacts:
    """The cluster's settings alone: one call. Raises SlurmUnreachable."""
    config = parse_config(slurm.answer(["scontrol", "show", "config"]))
    return ClusterFacts(config=config, partitions=[], nodes=[])


def _signals_children(cgroup_conf: Path) -> bool:
    """Slurm shows all of cgroup.conf but this."""
    try:
        text = cgroup_conf.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return re.search(r"(?im)^\s*SignalChildrenProcesses\s*=\s*(yes|true|1)\b", text) is not None


def parse_config(text: str) -> dict[str, str]:
    """`scontrol show config`: a name and a value per line; the cgroup section's names stand beside the others."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip():
            value = value.strip()
            found.setdefault(name.strip(), "" if value == "(null)" else value)
    return found


def parse_partitions(text: str) -> list[Partition]:
    """`scontrol --oneliner show partition`: NAME=VALUE words, one partition per line."""
    found = []
    for line in text.splitlines():
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "PartitionName" in words:
            found.append(Partition(name=words["PartitionName"], words=words))
    return found


def parse_nodes(text: str) -> list[NodeGroup]:
    """sinfo's lines of `%R|%D|%c|%m|%G|%f|%T`."""
    found = []
    for line in text.splitlines():
        partition, count, cpus, memory, gres, features, state = line.split("|")
        found.append(
            NodeGroup(
                partition=partition,
                count=int(count),
                cpus=int(cpus.rstrip("+")),
                memory_mb=int(memory.rstrip("+")),
                gpus=parse_gpus(gres),
                features=() if features == "(null)" else tuple(features.split(",")),
                state=state.rstrip("*~#!%$@^-+").lower(),
            )
        )
    return found


def parse_gpus(gres: str) -> dict[str, int]:
    """GPUs by type of a gres list such as `gpu:h100:4(S:0-1),shard:h100:8,tmp:200G`."""
    found: dict[str, int] = {}
    for kind, number in re.findall(r"(?:^|,)gpu(?::([A-Za-z_][\w.\-]*))?:(\d+)", gres):
        found[kind] = found.get(kind, 0) + int(number)
    return found


def seconds_of(text: str) -> int | None:
    """Seconds of a time as Slurm writes or takes it: `UNLIMITED` (None), minutes, `MM:SS`, `HH:MM:SS`, `D-HH:MM:SS`."""
    if not text or not text[0].isdigit():
        return None
    days, dash, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
