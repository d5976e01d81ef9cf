"""What the start and the end of a run's job mean. The batch script asks; on this machine, the controller does.

    python -m trainwright.launchers.supervisor begin RUN_DIR FIRST
    python -m trainwright.launchers.supervisor ending RUN_DIR ATTEMPT
    python -m trainwright.launchers.supervisor end RUN_DIR ATTEMPT CODE [--signal NAME] [--message TEXT]

`begin` prints the number of the attempt that starts (FIRST is the one that was submitted) and for how many seconds its
ranks may run (0: no limit). If the job shall not start again it prints nothing, and ends with 0 if the run is finished,
else with 1. `ending` is asked when Slurm ends the job: it may have requeued it itself, and is asked not to hold it back
then. `end` records why the attempt ended, requeues the job if the run goes on, and exits with the code that the end
means: the verdict of the rank that failed first, else CODE.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
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
from .lost_nodes import dead_nodes, start_soon
from .reconcile import reconcile
from .scontrol import ControlRefused, JobControl, JobDetails
from .slurm import Slurm, SlurmUnreachable, expand_hosts, own_job_id

_REQUEUE_S = 20.0
"""What ending the ranks, starting Python and requeueing may take."""


def main(argv: Sequence[str]) -> int:
    """Answer the batch script; the exit code."""
    parser = argparse.ArgumentParser(prog="supervisor")
    commands = parser.add_subparsers(dest="command", required=True)
    starts = commands.add_parser("begin")
    starts.add_argument("run_dir", type=Path)
    starts.add_argument("first", type=int)
    ending = commands.add_parser("ending")
    ending.add_argument("run_dir", type=Path)
    ending.add_argument("attempt", type=int)
    ends = commands.add_parser("end")
    ends.add_argument("run_dir", type=Path)
    ends.add_argument("attempt", type=int)
    ends.add_argument("code", type=int)
    ends.add_argument("--signal", default="")
    ends.add_argument("--message", default="")
    given = parser.parse_args(argv)
    run = RunDir(given.run_dir)
    if given.command == "begin":
        return begin(run, given.first)
    if given.command == "ending":
        return is_ending(run, given.attempt)
    return end(run, given.attempt, given.code, given.signal, given.message)


def begin(run: RunDir, first: int) -> int:
    """Claim the attempt, find out about the one before it, and say whether the job may start."""
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    attempt = claim(run, first, restarts)
    ledger = LedgerWriter(run, attempt, "supervisor")
    control = _control(run)
    details = _details(control)
    ledger.write(
        "nodes",
        job_id=own_job_id(os.environ),
        nodes=os.environ.get("SLURM_JOB_NODELIST"),
        restarts=restarts,
        ends_at=details.ends_at if details else None,
    )
    if restarts:
        reconcile(run, first, attempt)
        past = past_of(read_ledger(run), first)
        decision = decide(past, load_frozen(run.attempt_yaml(attempt)).restarts) if past else None
        if decision and not decision.restart:
            code = 0 if past[-1].cause == "finished" else 1
            _refuse(ledger, decision, code)
            drop_keys(run.jobs)
            return code
    print(attempt, _seconds_left(details))
    return 0


def _seconds_left(details: JobDetails | None) -> int:
    """Seconds after which ranks are killed, so that the job can be requeued before Slurm ends it; 0 without a limit."""
    if details is None or details.ends_at is None:
        return 0
    left_s = details.ends_at - time.time()
    return max(1, round(left_s - min(_REQUEUE_S, left_s / 4)))


def _refuse(ledger: LedgerWriter, decision: Decision, code: int) -> None:
    """Slurm started the job again by itself, but its budget is used, somebody has cancelled the run, or it is finished:
    a node died right after its last step."""
    print(f"trainwright: not started again: {decision.why}", file=sys.stderr)
    ledger.write(
        "exit", code=code, step_code=code, signal="", message=f"not started again: {decision.why}", failure=None
    )


def is_ending(run: RunDir, attempt: int) -> int:
    """Slurm ends the job: have it start again soon, if it was requeued. Always 0: the script has more to do."""
    cluster, job_id = load_frozen(run.run_yaml).cluster, own_job_id(os.environ)
    if job_id:
        hosts = expand_hosts(os.environ.get("SLURM_JOB_NODELIST", ""))
        with suppress(SlurmUnreachable):
            start_soon(run, attempt, cluster, job_id, dead_nodes(Slurm(cluster), hosts))
    return 0


def end(run: RunDir, attempt: int, step_code: int, signal: str, message: str) -> int:
    """Record the end of one attempt and do what follows from it; its exit code."""
    all_events = read_ledger(run)
    first, _ = submission_of(all_events, attempt)
    if any(event.event == "cause" and event.attempt == attempt for event in all_events):
        attempt = claim(run, first, 1)  # started again, and ended before it could ask for its number
    config = load_frozen(run.attempt_yaml(attempt))
    events = [event for event in all_events if event.attempt == attempt]
    control = _control(run)
    said = read_log(run.batch_log(attempt))
    if attempt > first:  # Slurm's own words are in the file that sbatch was given, the first attempt's
        said += words_since(read_log(run.batch_log(first)), began(events))
    cancelled = any(event.event == "cancel" and event.attempt >= first for event in all_events)
    facts = EndFacts(
        step_code=step_code,
        verdicts={**codes_by_srun(said), **verdicts(events)},
        world_size=config.cluster.world_size,
        batch_log=said,
        signal=signal,
        message=message,
        job=_details(control),
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
    if goes_on and control:
        _go_on(run, control, ledger, decision, start_in_s(run, attempt, cause))
    else:
        drop_keys(run.jobs)
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


def _control(run: RunDir) -> JobControl | None:
    """scontrol for this job; None on this machine."""
    job_id = own_job_id(os.environ)
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm" or not job_id:
        return None
    return JobControl(Slurm(load_frozen(run.run_yaml).cluster), job_id)


def _details(control: JobControl | None) -> JobDetails | None:
    try:
        return control.details() if control else None
    except (ControlRefused, SlurmUnreachable) as error:
        print(f"trainwright: Slurm does not say what it knows of this job: {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
