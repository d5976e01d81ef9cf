"""Attempts that ended without a word of their script: found at the next start, judged by what is left of them."""

import os
from collections.abc import Sequence

from ..config.loading import load_frozen
from ..config.rundir import RunDir
from ..tracking.ledger import Event, LedgerWriter, read_ledger
from .attempts import began, verdicts
from .ends import Cause, EndFacts, cause_of, slurm_reason, words_since
from .hangs import name_hang
from .healing import exclude
from .logs import read_log
from .lost_nodes import unused_nodes
from .packs import slurm_log
from .slurm import Slurm, expand_hosts

_REASONS: dict[str, Cause] = {"preemption": "preemption", "time limit": "time limit", "job requeue": "asked"}


def reconcile(run: RunDir, first: int, attempt: int) -> None:
    """Write the cause of every attempt from `first` to before `attempt` that has none."""
    events = read_ledger(run)
    for before in range(first, attempt):
        own = [event for event in events if event.attempt == before]
        if own and not any(event.event == "cause" for event in own):
            _judge(run, first, before, attempt, own)


def _judge(run: RunDir, first: int, before: int, attempt: int, events: Sequence[Event]) -> None:
    config = load_frozen(run.attempt_yaml(before))
    # Slurm's own words are in the file that sbatch was given, the first attempt's; srun's are in the attempt's own.
    by_slurm = words_since(read_log(slurm_log(run, first, os.environ)), began(events))
    said = read_log(run.batch_log(before)) + by_slurm
    dead = unused_nodes(Slurm(config.cluster), _nodes(events))
    cause = _cause(
        EndFacts(step_code=1, verdicts=verdicts(events), world_size=config.cluster.world_size, batch_log=said)
    )
    if cause == "hang" and dead:  # its ranks went on there, and waited in vain for those that Slurm had ended
        cause = "node failure"
    if cause == "crash":
        reason = slurm_reason(by_slurm)
        # Slurm starts a job again after these three and after a failed node, which alone leaves no line.
        cause = "node failure" if dead or reason is None else _REASONS.get(reason, "node failure")
    ledger = LedgerWriter(run, before, f"found-by-{attempt:04d}")
    hang = name_hang(run, before, events, config.cluster.world_size) if cause == "hang" else None
    ledger.write("cause", cause=cause, nodes=dead, **({"why": hang.line, "ranks": hang.ranks} if hang else {}))
    if cause == "node failure":
        exclude(ledger, dead, f"{cause} in attempt {before}", config.restarts.exclude_hours)


def _cause(facts: EndFacts) -> Cause:
    cause = cause_of(facts)
    return "crash" if cause == "cancelled" else cause  # Slurm does not start a cancelled job again


def _nodes(events: Sequence[Event]) -> list[str]:
    for event in events:
        if event.event == "nodes" and event.fields.get("nodes"):
            return expand_hosts(event.fields["nodes"])
    return []
