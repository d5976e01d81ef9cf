"""The environment that a job gets, as `plan` shows it: names, values and where they come from; secrets are masked."""

import re
from dataclasses import dataclass

from .environment import is_secret, passed_values, slurm_values
from .script import ScriptFacts

MASKED = "(secret)"
_SECRET_URL = re.compile(r"(\w+://)[^/\s@]+@")
_OPAQUE = re.compile(r"(?=[^/]*\d)(?=[^/]*[A-Za-z])[A-Za-z0-9_+=\-]{20,}")
"""A word as long as keys are, of letters and digits: it may be one, whatever its name."""


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One variable of the job."""

    name: str
    value: str | None
    """None: only the job knows it."""
    source: str
    """Who sets it."""


def masked(name: str, value: str) -> str:
    """The value, or what may be shown instead of a secret."""
    if is_secret(name) or _OPAQUE.fullmatch(value):
        return MASKED
    return _SECRET_URL.sub(rf"\1{MASKED}@", value)


def job_environment(facts: ScriptFacts) -> list[Variable]:
    """What a training job's ranks see beside Slurm's own variables, by name."""
    shell = {**passed_values(facts.cluster, facts.environment), **slurm_values(facts.cluster)}
    found = [Variable(name=name, value=masked(name, value), source="this shell") for name, value in shell.items()]
    return sorted([*found, *_by_script(facts), *_by_rank(facts)], key=lambda variable: variable.name)


def _by_script(facts: ScriptFacts) -> list[Variable]:
    values = {
        "PYTHONPATH": str(facts.code) if facts.code else None,
        "PYTHONSAFEPATH": "1",
        "SRUN_CPUS_PER_TASK": str(facts.cluster.cpus_per_rank),
        "SUBMITIT_EXECUTOR": "slurm",
    }
    found = [Variable(name=name, value=value, source="the script") for name, value in values.items() if value]
    return [*found, Variable(name="TRAINWRIGHT_ATTEMPT", value=None, source="the script, when it starts")]


def _by_rank(facts: ScriptFacts) -> list[Variable]:
    """Set by each rank as it joins the others (launchers/rendezvous.py)."""
    cluster = facts.cluster
    interface, source = cluster.network_interface, "cluster.network_interface"
    if interface is None:
        one_node = cluster.nodes == 1
        interface = "lo" if one_node else None
        source = "each rank; one node needs no network" if one_node else "each rank: the interface that reaches rank 0"
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    found = [Variable(name=name, value=interface, source=source) for name in names]
    if not cluster.gpus_per_node:
        found.append(Variable(name="OMP_NUM_THREADS", value=str(cluster.cpus_per_rank), source="cluster.cpus_per_rank"))
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "RANK"):
        found.append(Variable(name=name, value=None, source="each rank"))
    sizes = {"LOCAL_WORLD_SIZE": cluster.ranks_per_node, "WORLD_SIZE": cluster.world_size}
    return [*found, *(Variable(name=name, value=str(size), source="each rank") for name, size in sizes.items())]
