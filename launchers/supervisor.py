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
    failure = first_failure(run.batch_log(attempt))
    events = [event for event in read_ledger(run) if event.attempt == attempt]
    code = meaning(given.code, verdicts(events), failure)
    ledger = LedgerWriter(run, attempt, "supervisor")
    if given.signal:
        ledger.write("signal", name=given.signal)
    record = vars(failure) if failure else None
    ledger.write("exit", code=code, step_code=given.code, signal=given.signal, message=given.message, failure=record)
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


def first_failure(batch_log: Path) -> Failure | None:
    """The first rank that srun or the controller said had failed, by the log."""
    try:
        text = batch_log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    ends = _TASK_ENDED.findall(text)
    # Ranks that were ended because another failed are "Terminated"; the cause comes before them, or is the only kind.
    host, ranks, how = next((end for end in ends if end[2] != "Terminated"), ends[0] if ends else ("", "", ""))
    if not host:
        return None
    return Failure(rank=int(re.split("[,-]", ranks)[0]), host=host, how=how.strip())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
