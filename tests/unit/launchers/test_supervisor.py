"""Jobs that Slurm starts again by itself, where nothing is left to do."""

from pathlib import Path

import pytest

from trainwright.config.loading import dump_run, load_run
from trainwright.config.rundir import RunDir
from trainwright.launchers.status import read_status
from trainwright.launchers.supervisor import begin
from trainwright.tracking.ledger import LedgerWriter

from .conftest import write_command


@pytest.mark.parametrize(("cause", "code", "state"), [("finished", 0, "finished"), ("mistake", 1, "failed")])
def test_a_run_that_is_over_is_not_started_again(
    cause: str,
    code: int,
    state: str,
    run_file: Path,
    commands: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = RunDir(run_file.parent / "runs" / "tiny")
    run.path.mkdir(parents=True)
    config = dump_run(load_run(run_file, ["cluster.scheduler=slurm"]))
    first = run.next_attempt()
    for path in (run.run_yaml, run.attempt_yaml(first)):
        path.write_text(config)
    LedgerWriter(run, first, "submit").write("submit", scheduler="slurm", job_id="7", world_size=1)
    LedgerWriter(run, first, "supervisor").write("cause", cause=cause)
    for command in ("scontrol", "sinfo", "squeue"):
        write_command(commands, command, "exit 1")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert begin(run, first) == code
    assert capsys.readouterr().out == ""
    assert read_status(run).state == state
