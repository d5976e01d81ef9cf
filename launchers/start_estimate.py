"""When a job would start: what `sbatch --test-only` says, which submits nothing."""

import re
from dataclasses import dataclass

from ..config.cluster import ClusterConfig
from ..config.errors import UserError
from .environment import is_secret, passed_values
from .slurm import Slurm, SlurmUnreachable

# sbatch: Job 123 to start at 2026-11-28T23:49:58 using 4 processors on nodes node[1-2] in partition main
# A controller of Slurm 17.02 or older names no partition; then the word `nodes` is missing too.
_WILL_RUN = re.compile(r"Job \d+ to start at (\S+) using (\d+) processors on (?:nodes )?(\S+)(?: in partition (\S+))?")
_PREEMPTS = re.compile(r"Preempts: (\S+)")
_NO_TIMES = ("Unknown", "None", "N/A")


@dataclass(frozen=True, kw_only=True)
class StartEstimate:
    """When and where Slurm would start a job if nothing changed; it promises nothing."""

    time: str | None
    """Local time of the cluster, without a zone, as Slurm writes it; None: not known."""
    nodes: str | None = None
    """A Slurm host list."""
    partition: str | None = None
    preempts: str | None = None
    """Jobs that would have to go."""
    why: str = ""
    """Why it is not known."""


def start_estimate(cluster: ClusterConfig, script: str, patience_s: float) -> StartEstimate:
    """Ask Slurm about a script; never raises for what Slurm says or does not say."""
    slurm = Slurm(cluster)
    try:
        slurm.check()
        seen = {name: value for name, value in passed_values(cluster).items() if not is_secret(name)}
        done = slurm.ask(["sbatch", "--test-only"], patience_s, script=script, environment=seen)
    except UserError as error:
        return StartEstimate(time=None, why=error.problem)
    except SlurmUnreachable as error:
        return StartEstimate(time=None, why=str(error))
    return parse_test_only(done.stderr)


def parse_test_only(said: str) -> StartEstimate:
    """The words of sbatch, of Slurm 17.11 to 25.11, on stderr."""
    found = _WILL_RUN.search(said)
    if found is None or found.group(1) in _NO_TIMES:
        lines = [re.sub(r"^(sbatch: )?(error: )?", "", line).strip() for line in said.splitlines()]
        return StartEstimate(time=None, why="; ".join(filter(None, lines)) or "sbatch --test-only said nothing")
    preempts = _PREEMPTS.search(said)
    return StartEstimate(
        time=found.group(1),
        nodes=found.group(3),
        partition=found.group(4),
        preempts=preempts.group(1) if preempts else None,
    )
