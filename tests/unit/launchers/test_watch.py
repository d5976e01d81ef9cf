"""Which waiting jobs `watch` helps along."""

import time
from pathlib import Path

import pytest

from trainwright.config.cluster import ClusterConfig
from trainwright.config.rundir import RunDir
from trainwright.launchers.healing import exclude, start_in_s
from trainwright.launchers.slurm import JobInfo, SlurmUnreachable
from trainwright.launchers.watch import Step, look, waits_on_purpose, what_to_do
from trainwright.tracking.ledger import LedgerWriter

from .conftest import write_command


@pytest.mark.parametrize(
    ("state", "reason", "wanted"),
    [
        ("PENDING", "BeginTime", "start"),
        ("PENDING", "Resources", ""),
        ("PENDING", "JobHeldUser", ""),  # somebody wants it held
        ("PENDING", "JobHeldAdmin", ""),
        ("PENDING", "launch failed requeued held", "release"),
        ("REQUEUE_HOLD", "launch_failed_requeued_held", "release"),
        ("PENDING", "JobHoldMaxRequeue", "release"),
        ("RUNNING", "None", ""),
        ("COMPLETED", "BeginTime", ""),
    ],
)
def test_what_to_do(state: str, reason: str, wanted: str) -> None:
    assert what_to_do(JobInfo(state=state, reason=reason)) == wanted


def test_one_squeue_for_all_jobs_and_what_is_asked_of_scontrol(commands: Path, tmp_path: Path) -> None:
    write_command(commands, "squeue", f"echo squeue \"$@\" >>{tmp_path}/asked; echo '7|PENDING|BeginTime|'; "
             "echo '8|REQUEUE_HOLD|launch failed requeued held|'; echo '9|RUNNING|None|n1'")  # fmt: skip
    write_command(commands, "scontrol", f'echo "$@" >>{tmp_path}/asked')
    steps = look(ClusterConfig(), dict.fromkeys(("7", "8", "9"), RunDir(tmp_path / "run")))
    assert steps == [Step(job_id="7", done="started now instead of later"), Step(job_id="8", done="released")]
    asked = (tmp_path / "asked").read_text().splitlines()
    assert sum(line.startswith("squeue") for line in asked) == 1
    assert asked[1:] == ["update JobId=7 StartTime=now", "release 8", "update JobId=8 StartTime=now"]


def test_a_waiting_job_gets_nodes_back_whose_exclusion_is_over(commands: Path, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    ledger = LedgerWriter(run, run.next_attempt(), "supervisor")
    for host, hours in (("n1", -1.0), ("n2", 1.0), ("n3", -1.0), ("n3", 1.0)):  # of n3 the newest entry counts
        exclude(ledger, [host], "unwell", hours)
    write_command(commands, "squeue", "echo '7|PENDING|BadConstraints|'")
    shown = "echo 'JobId=7 JobState=PENDING ExcNodeList=n[1-3],x'"
    write_command(commands, "scontrol", f'echo "$@" >>{tmp_path}/asked; {shown}')
    assert look(ClusterConfig(exclude="x"), {"7": run}) == [Step(job_id="7", done="may have n1 again")]
    assert (tmp_path / "asked").read_text().splitlines()[-1] == "update JobId=7 ExcNodeList=x,n2,n3"
    write_command(commands, "scontrol", "echo 'JobId=7 JobState=PENDING ExcNodeList=n[2-3],x'")
    assert look(ClusterConfig(exclude="x"), {"7": run}) == []


def test_a_refusal_is_told_and_a_silent_controller_is_the_callers(commands: Path, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    write_command(commands, "squeue", "echo '7|PENDING|BeginTime|'")
    write_command(commands, "scontrol", "echo 'Access/permission denied' >&2; exit 1")
    assert look(ClusterConfig(), {"7": run})[0].done == "Slurm refused: Access/permission denied"
    write_command(commands, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(SlurmUnreachable):
        look(ClusterConfig(), {"7": run})


def test_a_job_that_crashed_before_its_first_step_is_left_its_two_minutes(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.telemetry.mkdir(parents=True)
    attempt = run.next_attempt()
    assert not waits_on_purpose(run)
    assert start_in_s(run, attempt, "node failure") == 5
    seconds = start_in_s(run, attempt, "crash")
    assert seconds == 120
    LedgerWriter(run, attempt, "supervisor").write("requeue", why="", trouble="", not_before=time.time() + seconds)
    assert waits_on_purpose(run)
    run.metrics(attempt).write_text("{}\n")
    assert start_in_s(run, attempt, "crash") == 5
    LedgerWriter(run, attempt, "supervisor").write("requeue", why="", trouble="", not_before=time.time() - 1)
    assert not waits_on_purpose(run)
