"""`status` while Slurm's controller is away: ranks that write are alive; what nobody knows is unknown."""

import os
import time
from pathlib import Path

import pytest

from trainwright.config.loading import dump_run, load_run
from trainwright.config.rundir import RunDir, create_run_dir
from trainwright.launchers.status import read_status
from trainwright.tracking.ledger import LedgerWriter

from .conftest import write_command


@pytest.fixture
def run(run_file: Path, commands: Path) -> RunDir:
    """One that runs, by its ledger, on a cluster whose controller does not answer."""
    write_command(commands, "squeue", "echo 'Unable to contact slurm controller (connect failure)' >&2; exit 1")
    run = create_run_dir(run_file.parent / "runs", "tiny")
    run.run_yaml.write_text(dump_run(load_run(run_file, ["cluster.scheduler=slurm"])))
    attempt = run.next_attempt()
    LedgerWriter(run, attempt, "submit").write("submit", scheduler="slurm", job_id="7", world_size=1)
    LedgerWriter(run, attempt, "rank-00000").write("start", rank=0, host="node1")
    run.rank_log(attempt, 0).write_text("step 1\n")
    return run


def test_a_rank_that_writes_runs(run: RunDir) -> None:
    now = read_status(run)
    assert now.state == "running"
    assert "Slurm does not answer" in now.why


def test_a_rank_that_is_silent_too_is_unknown(run: RunDir) -> None:
    long_ago = time.time() - 3600
    os.utime(run.rank_log(1, 0), (long_ago, long_ago))
    assert read_status(run).state == "unknown"


def test_a_rank_that_gave_its_verdict_is_not_alive(run: RunDir) -> None:
    LedgerWriter(run, 1, "rank-00000").write("verdict", rank=0, code=1, message="oops")
    assert read_status(run).state == "failed"
