"""A profile that suits a cluster: the fields of the run file's `cluster` section, and the file that holds them."""

import os
from pathlib import Path

import yaml

from ...config.cluster import ClusterConfig
from ...config.errors import UserError
from ...config.profiles import profile_folders
from ..cluster_config import ClusterFacts, NodeGroup, Partition
from ..user_limits import UserLimits

_DAY_S = 24 * 3600


def best_partition(facts: ClusterFacts, name: str | None) -> Partition:
    """The partition asked for, else of those that are up the default one if it has GPUs, else the one with most.

    Raises UserError with the site's partitions if there is none of that name.
    """
    if name:
        found = facts.partition(name.partition(",")[0])
        if found is None:
            names = ", ".join(part.name for part in facts.partitions)
            raise UserError("cluster.partition", f"{name} is not on this cluster", f"use one of {names}")
        return found
    ups = [part for part in facts.partitions if part.is_up] or facts.partitions
    if not ups:
        raise UserError("doctor", "the cluster has no partition that you may see", "ask its admins")

    def worth(part: Partition) -> tuple[bool, int]:
        gpus = sum(g.count * sum(g.gpus.values()) for g in facts.nodes if g.partition == part.name)
        return (part.is_default and gpus > 0, gpus)

    best = max(ups, key=worth)
    return best if worth(best)[1] else next((part for part in ups if part.is_default), ups[0])


def propose(facts: ClusterFacts, partition: Partition, limits: UserLimits, base: ClusterConfig) -> dict[str, object]:
    """Fields of a profile for the commonest nodes of a partition; what `base` says already stays."""
    groups = [group for group in facts.nodes if group.partition == partition.name]
    node = max(groups, key=lambda group: (sum(group.gpus.values()) > 0, group.count), default=None)
    fields: dict[str, object] = {"scheduler": "slurm", "partition": partition.name}
    account = base.account or limits.default_account
    if account and partition.allows("Accounts", account):
        fields["account"] = account
    elif limits.accounts:
        fields["account"] = next((name for name in limits.accounts if partition.allows("Accounts", name)), account)
    qos = base.qos or ("" if partition.allows("Qos", "normal") else next(iter(limits.qos), ""))
    if qos:
        fields["qos"] = qos
    fields |= _shape(node)
    limit_s = partition.max_time_s
    fields["time_limit"] = _time(min(limit_s or _DAY_S, _DAY_S))
    conf = base.slurm_conf or os.environ.get("SLURM_CONF")
    if conf:
        fields["slurm_conf"] = conf
    return fields


def write_profile(name: str, fields: dict[str, object], about: str) -> Path:
    """Write NAME.yaml into the user's config folder. UserError if it exists, or NAME is no name."""
    if not name or "/" in name or name.startswith("."):
        raise UserError("--write-profile", f"{name!r} is not a name", "give the profile's name, not its path")
    path = profile_folders(Path.cwd())[1] / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"# Proposed by `trainwright doctor` for {about}; change what you know better.\n"
    text += yaml.safe_dump(fields, sort_keys=False)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    try:
        os.link(beside, path)  # unlike a rename it never replaces
    except FileExistsError:
        raise UserError("--write-profile", f"{path} exists", "remove it, or give another name") from None
    finally:
        beside.unlink()
    return path


def _shape(node: NodeGroup | None) -> dict[str, object]:
    if node is None:
        return {"ranks_per_node": 1}
    gpus = sum(node.gpus.values())
    if not gpus:
        ranks = min(node.cpus, 2)
        return {"ranks_per_node": ranks, "cpus_per_rank": max(1, node.cpus // ranks)}
    return {"ranks_per_node": gpus, "gpus_per_node": gpus, "cpus_per_rank": max(1, node.cpus // gpus)}


def _time(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
