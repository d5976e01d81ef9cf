"""Attempts whose script never said how they ended, judged at the next start."""

from pathlib import Path

import pytest

from trainwright.config.loading import dump_run, load_run
from trainwright.config.rundir import RunDir
from trainwright.launchers.reconcile import reconcile
from trainwright.tracking.ledger import LedgerWriter, read_ledger

from .conftest import write_command


@pytest.mark.parametrize(
    ("states", "verdicts", "cause", "excluded"),
    [
        ("n1 idle\nn2 allocated", {}, "node failure", []),  # Slurm alone starts a job again without a line
        ("n1 down*\nn2 idle", {}, "node failure", ["n1"]),
        (
            "n1 down*\nn2 idle",
            {0: 87},
            "node failure",
            ["n1"],
        ),  # it waited for the rank that was ended
        ("n1 idle\nn2 idle", {0: 87, 1: 87}, "hang", []),
        ("n1 idle\nn2 idle", {0: 86}, "unhealthy node", []),
    ],
)
def test_the_cause_that_is_found(
    run_file: Path, commands: Path, states: str, verdicts: dict[int, int], cause: str, excluded: list[str]
) -> None:
    run = RunDir(run_file.parent / "runs" / "tiny")
    run.path.mkdir(parents=True)
    first = run.next_attempt()
    config = load_run(run_file, ["cluster.scheduler=slurm", "cluster.nodes=2"])
    run.attempt_yaml(first).write_text(dump_run(config))
    LedgerWriter(run, first, "supervisor").write("nodes", nodes="n[1-2]", job_id="7")
    for rank, code in verdicts.items():
        LedgerWriter(run, first, f"rank-{rank:05d}").write("verdict", rank=rank, code=code, message="")
    write_command(commands, "sinfo", f"echo '{states}'")
    reconcile(run, first, first + 1)
    events = read_ledger(run)
    assert [event.fields["cause"] for event in events if event.event == "cause"] == [cause]
    assert [event.fields["host"] for event in events if event.event == "exclude"] == excluded
    reconcile(run, first, first + 1)  # by the start after the next
    assert read_ledger(run) == events
