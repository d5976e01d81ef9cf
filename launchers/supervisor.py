"""What the end of a run's job means.

    python -m trainwright.launchers.supervisor RUN_DIR ATTEMPT CODE [--signal NAME] [--message TEXT]

The batch script (on this machine: the controller) asks when its ranks are gone. It records the end in the ledger and
exits with the code that the end means: the verdict of the rank that failed first, else CODE.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config.rundir import RunDir
from ..tracking.ledger import Event, LedgerWriter, read_ledger

# srun: error: node1: tasks 1,3: Killed      controller: error: laptop: task 0: Exited with exit code 93
_TASK_ENDED = re.compile(r"^(?:srun|controller): error: (\S+): tasks? ([\d,-]+): (.+)$", re.MULTILINE)
# slurmstepd-node1: error: *** JOB 3 ON node1 CANCELLED AT 2026-11-24T06:01:57 DUE TO TIME LIMIT ***
_SLURM_ENDED = re.compile(r"error: \*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+(?: DUE TO ([A-Z ]+?))? \*\*\*")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The rank that failed first, where, and how in srun's words."""

    rank: int
    host: str
    how: str


def main(argv: Sequence[str]) -> int:
    """Record the end of one attempt; its exit code."""
    parser = argparse.ArgumentParser(prog="supervisor")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("attempt", type=int)
    parser.add_argument("code", type=int)
    parser.add_argument("--signal", default="")
    parser.add_argument("--message", default="")
    given = parser.parse_args(argv)
    run, attempt = RunDir(given.run_dir), given.attempt
    said = _read(run.batch_log(attempt))
    failure = first_failure(said)
    if failure and given.signal and failure.how == "Terminated":
        failure = None  # the signal that the batch script passed on; no rank failed by itself
    events = [event for event in read_ledger(run) if event.attempt == attempt]
    code = meaning(given.code, verdicts(events), failure)
    ledger = LedgerWriter(run, attempt, "supervisor")
    if given.signal:
        ledger.write("signal", name=given.signal)
    ledger.write(
        "exit",
        code=code,
        step_code=given.code,
        signal=given.signal,
        message=given.message,
        failure=vars(failure) if failure else None,
        slurm=slurm_reason(said),
    )
    return code


def verdicts(events: Sequence[Event]) -> dict[int, int]:
    """Verdict code of each rank that gave one."""
    return {event.fields["rank"]: event.fields["code"] for event in events if event.event == "verdict"}


def meaning(step_code: int, given: dict[int, int], failure: Failure | None) -> int:
    """Exit code of the job: a verdict counts before the step's code, which is only the largest of the ranks'."""
    if failure and given.get(failure.rank):
        return given[failure.rank]
    bad = [code for code in given.values() if code]
    if step_code == 0:
        return max(bad, default=0)
    return step_code


def first_failure(batch_log: str) -> Failure | None:
    """The first rank that srun or the controller said had failed, by what they wrote in the batch log."""
    ends = _TASK_ENDED.findall(batch_log)
    if not ends:
        return None
    # Ranks that were ended because another failed are "Terminated"; the cause comes before them, or is the only kind.
    host, ranks, how = next((end for end in ends if end[2] != "Terminated"), ends[0])
    return Failure(rank=int(re.split("[,-]", ranks)[0]), host=host, how=how.strip())


def slurm_reason(batch_log: str) -> str | None:
    """Why Slurm ended the job, by the batch log: `cancelled`, `time limit`, `preemption`, ...; None if it did not."""
    ended = _SLURM_ENDED.search(batch_log)
    return None if ended is None else (ended.group(1) or "cancelled").lower()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
