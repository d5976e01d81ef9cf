"""What the start and the end of a run's job mean. The batch script asks; on this machine, the controller does.

    python -m trainwright.launchers.supervisor begin RUN_DIR FIRST [--again]
    python -m trainwright.launchers.supervisor ending RUN_DIR ATTEMPT
    python -m trainwright.launchers.supervisor end RUN_DIR ATTEMPT CODE [--signal NAME] [--message TEXT]

`begin` prints the number of the attempt that starts (FIRST is the one that was submitted) and for how many seconds its
ranks may run (0: no limit). With --again the job has run an attempt before. If the run shall not start again it prints
nothing, and ends with 0 if it is finished, else with 1. `ending` is asked when Slurm ends the job: it may have requeued
it itself, and is asked not to hold it back then. `end` records why the attempt ended, requeues the job if the run goes
on, and exits with the code that the end means: the verdict of the rank that failed first, else CODE. Where several runs
share the job, `end` requeues nothing: it prints after how many seconds the run may start again, and exits with 75, or
76 if it must leave the node.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..config.loading import load_frozen
from ..config.rundir import RunDir
from ..tracking.ledger import LedgerWriter, read_ledger
from .attempts import claim, past_of
from .decision import Decision, decide
from .ending import end
from .keys import drop_keys
from .lost_nodes import dead_nodes, start_soon
from .own_job import control_of, details_of
from .packs import PACK
from .reconcile import reconcile
from .scontrol import JobDetails
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
    starts.add_argument("--again", action="store_true")
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
        return begin(run, given.first, given.again)
    if given.command == "ending":
        return is_ending(run, given.attempt)
    return end(run, given.attempt, given.code, given.signal, given.message)


def begin(run: RunDir, first: int, again: bool = False) -> int:
    """Claim the attempt, find out about the one before it, and say whether the job may start."""
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    if PACK in os.environ:
        over = _over_in_pack(run, first)
        if over is not None:
            return over
    attempt = claim(run, first, restarts + again)
    ledger = LedgerWriter(run, attempt, "supervisor")
    control = control_of(run)
    details = details_of(control)
    ledger.write(
        "nodes",
        job_id=own_job_id(os.environ),
        nodes=os.environ.get("SLURM_JOB_NODELIST"),
        restarts=restarts,
        ends_at=details.ends_at if details else None,
    )
    if restarts or again:
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


def _over_in_pack(run: RunDir, first: int) -> int | None:
    """How a run ended for good, or was cancelled, while others of its job went on; None if it goes on."""
    events = [event for event in read_ledger(run) if event.attempt >= first]
    ends = [event.fields for event in events if event.event == "exit" and event.writer == "supervisor"]
    if ends and not ends[-1].get("requeued"):
        return 0 if ends[-1]["code"] == 0 else 1
    if not any(event.event == "cancel" for event in events):
        return None
    decision = Decision(restart=False, elsewhere=False, why="it was cancelled")
    if not ends:
        _refuse(LedgerWriter(run, first, "supervisor"), decision, code=1)
    drop_keys(run.jobs)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
