"""What a cluster cannot give is said before submission, with what it can: one line, not a job that waits for ever."""

import re
import time
from collections.abc import Sequence

from ..config.cluster import ClusterConfig
from ..config.errors import UserError
from .cluster_config import ClusterFacts, NodeGroup, Partition, read_cluster, seconds_of
from .environment import slurm_values
from .slurm import Slurm, SlurmUnreachable
from .user_limits import UserLimits, read_known_names

PATIENCE_S = 3.0
"""A controller that takes longer is not waited for: sbatch will say what is wrong."""
_FRESH_S = 60.0
_read: dict[str | None, tuple[float, ClusterFacts | None]] = {}
"""By slurm.conf: when it was read, and what; None: no answer."""


def require_possible_if_reached(cluster: ClusterConfig) -> None:
    """As `require_possible`, where this machine can submit to the cluster; elsewhere nothing is checked."""
    try:
        Slurm(cluster).check()
    except UserError:
        return
    require_possible(cluster)


def require_possible(cluster: ClusterConfig, array: int = 0) -> None:
    """Raise UserError with the site's valid values where the cluster cannot give what is asked for.

    Asks the controller once a minute, and about accounts and QOS only if one is named. Where it does not answer,
    nothing is checked.
    """
    slurm = Slurm(cluster)
    facts = read_facts(cluster, slurm)
    if facts is None:
        return
    check(cluster, facts, array)
    if cluster.account or cluster.qos:
        try:
            limits = read_known_names(slurm, facts)
        except SlurmUnreachable:
            limits = UserLimits()
        check_user(cluster, facts, limits)


def time_limit_s(cluster: ClusterConfig) -> float | None:
    """The job's time limit: as asked for, else the partition's; None: it has none, or the cluster was not reached."""
    if cluster.time_limit:
        return seconds_of(cluster.time_limit)
    facts = reached(cluster)
    partitions = _partitions(cluster, facts) if facts else []
    if not partitions:
        return None
    words = partitions[0].words
    default = words.get("DefaultTime", "NONE")
    return seconds_of(words.get("MaxTime", "UNLIMITED") if default == "NONE" else default)


def reached(cluster: ClusterConfig) -> ClusterFacts | None:
    """What the cluster is like; None where this machine cannot submit to it, or it does not answer in time."""
    slurm = Slurm(cluster)
    try:
        slurm.check()
    except UserError:
        return None
    return read_facts(cluster, slurm)


def read_facts(cluster: ClusterConfig, slurm: Slurm) -> ClusterFacts | None:
    """The cluster's configuration, asked for once a minute; None if it does not answer."""
    conf = slurm_values(cluster).get("SLURM_CONF")
    now = time.monotonic()
    if conf not in _read or now - _read[conf][0] > _FRESH_S:
        try:
            _read[conf] = (now, read_cluster(slurm, PATIENCE_S))
        except SlurmUnreachable:
            _read[conf] = (now, None)
    return _read[conf][1]


def check(cluster: ClusterConfig, facts: ClusterFacts, array: int = 0) -> None:
    """Partition, time, array, GPUs, memory, cores, features and number of nodes; raises UserError."""
    partitions = _partitions(cluster, facts)
    if not partitions:
        return
    longest = [part.max_time_s for part in partitions]
    asked_s = seconds_of(cluster.time_limit) if cluster.time_limit else None
    if asked_s is not None and all(most is not None and asked_s > most for most in longest):
        most = ", ".join(f"{part.words['MaxTime']} in {part.name}" for part in partitions)
        raise UserError("cluster.time_limit", f"{cluster.time_limit}, but MaxTime is {most}", "ask for less time")
    size = facts.number("MaxArraySize", 1001)
    if array > size:
        raise UserError("array", f"{array} tasks, but MaxArraySize is {size}", "make fewer tasks, each of more")
    names = {part.name for part in partitions}
    _check_nodes(cluster, [group for group in facts.nodes if group.partition in names])


def check_user(cluster: ClusterConfig, facts: ClusterFacts, limits: UserLimits) -> None:
    """Account and QOS, by the partition's lists, the user's associations and the site's QOS; raises UserError.

    Whether a QOS that there is may be used by this user only sbatch says; asking sacctmgr would take too long.
    """
    partitions = _partitions(cluster, facts)
    enforced = facts.config.get("AccountingStorageEnforce", "").lower()
    _check_word(
        "account", cluster.account, limits.accounts if "associations" in enforced else (), "Accounts", partitions
    )
    _check_word("qos", cluster.qos, limits.qos, "Qos", partitions)


def _check_word(field: str, word: str | None, known: Sequence[str], what: str, partitions: list[Partition]) -> None:
    if not word:
        return
    if known and word.lower() not in (name.lower() for name in known):
        raise UserError(
            f"cluster.{field}", f"there is no {word} for you here", f"use one of {', '.join(sorted(known))}"
        )
    if partitions and not any(part.allows(what, word) for part in partitions):
        part = partitions[0]
        allowed = part.words.get(f"Allow{what}") or f"all but {part.words.get(f'Deny{what}')}"
        raise UserError(f"cluster.{field}", f"{word} may not use partition {part.name}", f"it takes {allowed}")


def _partitions(cluster: ClusterConfig, facts: ClusterFacts) -> list[Partition]:
    """Those that are asked for, else the default one; UserError for a name that is not there."""
    if not cluster.partition:
        default = facts.partition(None)
        return [default] if default else []
    names = cluster.partition.split(",")
    found = {name: facts.partition(name) for name in names}
    for name, part in found.items():
        if part is None:
            have = ", ".join(part.name for part in facts.partitions)
            raise UserError("cluster.partition", f"{name} is not on this cluster", f"use one of {have}")
    return [part for part in found.values() if part is not None]


def _check_nodes(cluster: ClusterConfig, groups: list[NodeGroup]) -> None:
    """Each thing alone, so that the line can name it, then all together."""
    if not groups:
        return
    memory_mb, cpus = _megabytes(cluster.memory_per_node), cluster.ranks_per_node * cluster.cpus_per_rank
    kinds = sorted({f"{kind or 'GPU'} ({count} per node)" for group in groups for kind, count in group.gpus.items()})
    have = ", ".join(kinds) or "none"
    types = {kind for group in groups for kind in group.gpus if kind}
    if cluster.gpu_type and cluster.gpus_per_node and cluster.gpu_type not in types:
        raise UserError("cluster.gpu_type", f"{cluster.gpu_type} is on no node of the partition", f"it has {have}")
    if not any(_gpus(cluster, group) >= cluster.gpus_per_node for group in groups):
        raise UserError("cluster.gpus_per_node", f"{cluster.gpus_per_node}, which no node has", f"they have {have}")
    most_mb, most_cpus = max(group.memory_mb for group in groups), max(group.cpus for group in groups)
    if memory_mb > most_mb:
        raise UserError(
            "cluster.memory_per_node", f"{cluster.memory_per_node}, which no node has", f"at most {most_mb}M"
        )
    if cpus > most_cpus:
        asked = f"{cluster.cpus_per_rank} x {cluster.ranks_per_node} ranks = {cpus} cores, which no node has"
        raise UserError("cluster.cpus_per_rank", asked, f"at most {most_cpus} per node")
    features = sorted({feature for group in groups for feature in group.features})
    for word in re.findall(r"[A-Za-z0-9_.\-]+", re.sub(r"\*\d+", "", cluster.constraint or "")):
        if word not in features:
            raise UserError(
                "cluster.constraint", f"{word} is a feature of no node", f"there are {', '.join(features) or 'none'}"
            )
    fitting = sum(
        group.count
        for group in groups
        if _gpus(cluster, group) >= cluster.gpus_per_node and group.memory_mb >= memory_mb and group.cpus >= cpus
    )
    if cluster.nodes > fitting:
        asked = f"{cluster.nodes}, but {fitting} nodes have the GPUs, memory and cores asked for"
        raise UserError("cluster.nodes", asked, "ask for fewer nodes or less of each")


def _gpus(cluster: ClusterConfig, group: NodeGroup) -> int:
    return group.gpus.get(cluster.gpu_type, 0) if cluster.gpu_type else sum(group.gpus.values())


def _megabytes(memory: str | None) -> int:
    """Slurm's words: a number is megabytes, else K, M, G or T of 1024."""
    if not memory:
        return 0
    number, unit = re.fullmatch(r"(\d+)([KMGT]?)", memory).groups()  # type: ignore[union-attr]  # the field's pattern
    return int(int(number) * {"K": 1 / 1024, "": 1, "M": 1, "G": 1024, "T": 1024**2}[unit])
