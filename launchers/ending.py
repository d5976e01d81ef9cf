"""The end of one attempt: its cause is recorded, and the job is requeued if the run goes on."""

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from ..config.loading import load_frozen
from ..config.rundir import RunDir
from ..config.verdicts import HUNG, UNHEALTHY
from ..tracking.ledger import Event, LedgerWriter, read_ledger
from .attempts import began, claim, past_of, submission_of, verdicts
from .decision import Decision, decide
from .ends import (
    TERMINATED,
    Cause,
    EndFacts,
    cause_of,
    code_of,
    codes_by_srun,
    failed_nodes,
    first_failure,
    slurm_reason,
    words_since,
)
from .hangs import name_hang
from .healing import exclude, kept_away, requeue, start_in_s
from .keys import drop_keys
from .logs import read_log
from .own_job import control_of, details_of
from .packs import GOES_ON, MOVES, PACK, slurm_log
from .scontrol import ControlRefused, JobControl
from .slurm import SlurmUnreachable


def end(run: RunDir, attempt: int, step_code: int, signal: str, message: str) -> int:
    """Record the end of one attempt and do what follows from it; its exit code."""
    all_events = read_ledger(run)
    first, _ = submission_of(all_events, attempt)
    if any(event.event == "cause" and event.attempt == attempt for event in all_events):
        attempt = claim(run, first, 1)  # started again, and ended before it could ask for its number
    config = load_frozen(run.attempt_yaml(attempt))
    events = [event for event in all_events if event.attempt == attempt]
    control = control_of(run)
    said = read_log(run.batch_log(attempt))
    by_slurm = slurm_log(run, first, os.environ)
    if by_slurm != run.batch_log(attempt):
        said += words_since(read_log(by_slurm), began(events))
    cancelled = any(event.event == "cancel" and event.attempt >= first for event in all_events)
    facts = EndFacts(
        step_code=step_code,
        verdicts={**codes_by_srun(said), **verdicts(events)},
        world_size=config.cluster.world_size,
        batch_log=said,
        signal=signal,
        message=message,
        job=details_of(control),
        cancelled=cancelled,
        now=time.time(),
        at_limit=any(event.event == "stopping" and event.fields["why"] == "time limit" for event in events),
    )
    cause = cause_of(facts)
    ledger = LedgerWriter(run, attempt, "supervisor")
    if signal:
        ledger.write("signal", name=signal)
    hang = name_hang(run, attempt, events, facts.world_size) if cause == "hang" else None
    bad = _bad_hosts(events, facts)
    told = {"why": hang.line, "ranks": hang.ranks} if hang else _ill(events) if cause == "unhealthy node" else {}
    ledger.write("cause", cause=cause, **told)
    decision = decide(past_of(read_ledger(run), first), config.restarts)
    goes_on = decision.restart and control is not None
    if goes_on and decision.elsewhere:
        for host, words in bad.items():
            exclude(ledger, [host], f"{cause}: {words}" if words else cause, config.restarts.exclude_hours)
    code = _write_exit(ledger, facts, cause, why=decision.why if control else "", requeued=goes_on)
    if not goes_on or control is None:
        drop_keys(run.jobs)
        return code
    seconds = start_in_s(run, attempt, cause)
    if PACK in os.environ:
        return _go_on_in_pack(ledger, decision, seconds)
    _go_on(run, control, ledger, decision, seconds)
    return code


def _write_exit(ledger: LedgerWriter, facts: EndFacts, cause: Cause, why: str, requeued: bool) -> int:
    """Record the end; its exit code."""
    failure = first_failure(facts.batch_log)
    if failure and facts.signal and failure.how in TERMINATED:
        failure = None  # the signal that the batch script passed on; no rank failed by itself
    # A signal may end a rank that has nothing left to do; and nothing but a finished run may look like one.
    known = {"finished": 0, "hang": HUNG}
    code = known[cause] if cause in known else code_of(facts, failure) or 1
    ledger.write(
        "exit",
        code=code,
        step_code=facts.step_code,
        signal=facts.signal,
        message=facts.message,
        failure=vars(failure) if failure else None,
        slurm=slurm_reason(facts.batch_log),
        why=why,
        requeued=requeued,
    )
    return code


def _go_on(run: RunDir, control: JobControl, ledger: LedgerWriter, decision: Decision, seconds: int) -> None:
    """Requeue. The end is recorded by now: a requeue ends this process too, as soon as Slurm loses patience."""
    config = load_frozen(run.run_yaml).cluster
    try:
        trouble = requeue(control, kept_away(run, config), seconds)
    except (ControlRefused, SlurmUnreachable) as error:
        trouble = str(error)
    ledger.write("requeue", why=decision.why, trouble=trouble, not_before=time.time() + seconds)
    print(f"trainwright: {decision.why}{f' ({trouble})' if trouble else ''}", file=sys.stderr)


def _go_on_in_pack(ledger: LedgerWriter, decision: Decision, seconds: int) -> int:
    """The batch script starts the run again, beside the others; prints after how many seconds it may."""
    ledger.write("requeue", why=decision.why, trouble="", not_before=time.time() + seconds)
    print(f"trainwright: {decision.why}", file=sys.stderr)
    print(seconds)
    return MOVES if decision.elsewhere else GOES_ON


def _bad_hosts(events: Sequence[Event], facts: EndFacts) -> dict[str, str]:
    """Nodes that srun said had failed, and those of ranks that said so themselves, with what these said."""
    hosts = {event.fields["rank"]: event.fields["host"] for event in events if event.event == "start"}
    words = {event.fields["rank"]: event.fields["message"] for event in events if event.event == "verdict"}
    unwell = [rank for rank, code in facts.verdicts.items() if code == UNHEALTHY and rank in hosts]
    return dict.fromkeys(failed_nodes(facts.batch_log), "") | {hosts[rank]: words.get(rank, "") for rank in unwell}


def _ill(events: Sequence[Event]) -> dict[str, Any]:
    """What ranks of unhealthy nodes said of them."""
    said = {
        event.fields["rank"]: event.fields["message"]
        for event in events
        if event.event == "verdict" and event.fields["code"] == UNHEALTHY
    }
    return {"why": "; ".join(dict.fromkeys(said.values())), "ranks": sorted(said)} if said else {}
