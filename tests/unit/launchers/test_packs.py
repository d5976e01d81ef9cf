"""Runs that share a job: what the job asks for, which of them start, and how one is cancelled."""

from pathlib import Path

import pytest

from trainwright.config.cluster import ClusterConfig
from trainwright.config.errors import UserError
from trainwright.config.loading import dump_run, load_run
from trainwright.config.rundir import RunDir, create_run_dir
from trainwright.launchers.cancel import cancel_run
from trainwright.launchers.ending import end
from trainwright.launchers.packs import GOES_ON, MOVES, PACK, for_all, link, runs_of
from trainwright.launchers.status import read_status
from trainwright.launchers.supervisor import begin
from trainwright.tracking.ledger import LedgerWriter

from .conftest import write_command


@pytest.fixture
def pack(run_file: Path, commands: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs, `tiny` and `tiny-2`, in job 7_0, which runs."""
    folder = run_file.parent / "pack"
    folder.mkdir()
    for number in range(2):
        run = create_run_dir(run_file.parent / "runs", "tiny")
        attempt = run.next_attempt()
        for path in (run.run_yaml, run.attempt_yaml(attempt)):
            path.write_text(dump_run(load_run(run_file, ["cluster.scheduler=slurm"])))
        submit = {"scheduler": "slurm", "job_id": "7_0", "world_size": 1, "pack": str(folder)}
        LedgerWriter(run, attempt, "submit").write("submit", **submit)
        link(folder, number).symlink_to(run.path)
    for name in ("scontrol", "sinfo"):
        write_command(commands, name, "exit 1")
    write_command(commands, "squeue", _QUEUE.format(state="RUNNING"))
    monkeypatch.setenv(PACK, str(folder))
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    return folder


# Steps of job 7_0 with --steps, else the job.
_QUEUE = """case "$*" in
*--steps*) printf '7_0.batch batch\\n7_0.0 tiny\\n7_0.1 tiny-2\\n' ;;
*) echo '7_0|{state}|None|n1' ;;
esac"""


def _ended(run: RunDir, code: int, *, requeued: bool = False) -> None:
    LedgerWriter(run, run.attempts()[-1], "supervisor").write("exit", code=code, requeued=requeued)


def test_what_the_job_asks_for() -> None:
    share = ClusterConfig(ranks_per_node=2, gpus_per_node=2, cpus_per_rank=8, memory_per_node="90G")
    whole = for_all(share, 4)
    assert (whole.ranks_per_node, whole.gpus_per_node, whole.cpus_per_rank, whole.memory_per_node) == (8, 8, 8, "360G")
    assert for_all(ClusterConfig(memory_per_node="0"), 4).memory_per_node == "0", "all that the node has"
    assert for_all(ClusterConfig(), 3).memory_per_node is None


def test_a_run_that_is_over_is_left_alone_when_the_job_starts_again(
    pack: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done, on = runs_of(pack)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    _ended(done, 0)
    _ended(on, 1, requeued=True)
    assert begin(done, 1) == 0
    assert capsys.readouterr().out == ""
    assert done.attempts() == [1]
    assert begin(on, 1) == 0
    assert capsys.readouterr().out.split()[0] == "2"


def test_one_that_crashed_starts_again_in_the_same_job(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = runs_of(pack)
    begin(run, 1)
    LedgerWriter(run, 1, "rank-00000").write("verdict", rank=0, code=1, message="oops")
    LedgerWriter(run, 1, "rank-00000").write("commit", step=3, tokens=1)
    capsys.readouterr()
    assert end(run, 1, 1, "", "") == GOES_ON
    assert int(capsys.readouterr().out) > 0, "seconds until it may"
    assert begin(run, 1, again=True) == 0
    assert capsys.readouterr().out.split()[0] == "2"
    LedgerWriter(run, 2, "rank-00000").write("start", rank=0, host="n1")
    LedgerWriter(run, 2, "rank-00000").write("verdict", rank=0, code=86, message="its GPU is ill")
    assert end(run, 2, 86, "", "") == MOVES, "an unhealthy node is left by all"


def test_one_that_was_cancelled_before_it_began_never_does(pack: Path) -> None:
    run, _ = runs_of(pack)
    LedgerWriter(run, 1, "cancel-here-1").write("cancel", user=0)
    assert begin(run, 1) == 0
    assert read_status(run).state == "cancelled"


def test_one_is_cancelled_by_its_step_and_the_last_one_with_the_job(pack: Path, commands: Path, tmp_path: Path) -> None:
    first, second = runs_of(pack)
    write_command(commands, "scancel", f'echo "$*" >>{tmp_path}/asked')
    write_command(commands, "squeue", _QUEUE.format(state="PENDING"))  # so that it is over at once
    assert cancel_run(first).state == "cancelled"
    assert (tmp_path / "asked").read_text() == "7_0.0\n"
    assert cancel_run(second).state == "cancelled"
    assert (tmp_path / "asked").read_text() == "7_0.0\n7_0\n"


def test_a_silent_slurm_is_one_line(pack: Path, commands: Path) -> None:
    run, _ = runs_of(pack)
    silent = "echo 'Unable to contact slurm controller' >&2; exit 1"
    write_command(commands, "squeue", f'case "$*" in *--steps*) {silent} ;; *) echo "7_0|RUNNING|None|n1" ;; esac')
    with pytest.raises(UserError, match=r"Slurm does not answer .* ask again: what runs is as it was"):
        cancel_run(run)
