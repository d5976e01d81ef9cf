"""Runs on a real Slurm, as an ordinary user, by the command line: two nodes with two ranks each."""

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import submitit

from trainwright.config.rundir import RunDir
from trainwright.launchers.processes import wait_until
from trainwright.tracking.ledger import read_ledger

from .real_runs import IN_MATRIX

if TYPE_CHECKING:
    from tests.integration.conftest import User

pytestmark = [pytest.mark.slurm, pytest.mark.ranks]
_TWO_NODES = ("cluster.profile=dev", "cluster.nodes=2", "parallelism.tensor=2", "parallelism.pipeline=2")
_LONG = "train.steps=1000000"


def _json(user: "User", *arguments: str | Path) -> dict[str, Any]:
    """What a command prints with --json; it must end with 0."""
    done = user.trainwright(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def _started(user: "User", run_file: Path) -> tuple[RunDir, dict[int, dict[str, Any]]]:
    """A long run whose ranks all run, not restarted after a crash, and the first rank's start event by rank."""
    submitted = _json(user, "submit", run_file, _LONG, "restarts.crashes=0", *_TWO_NODES)
    run = RunDir(Path(submitted["run"]))

    def starts() -> list[dict[str, Any]]:
        return [event.fields for event in read_ledger(run) if event.event == "start"]

    assert wait_until(lambda: len(starts()) == 4, 90, every_s=0.2), run.batch_log(1).read_text()
    assert _json(user, "status", run.path)["state"] == "running"
    return run, {who["rank"]: who for who in starts()}


def test_training_over_two_nodes(dev_cluster: Path, ordinary_user: "User", users_run_file: Path) -> None:
    done = ordinary_user.trainwright("submit", users_run_file, *_TWO_NODES, "--wait", "--json")
    assert done.returncode == 0, done.stderr
    ended = json.loads(done.stdout)
    assert (ended["state"], ended["step"], ended["steps"], ended["code"]) == ("finished", 4, 4, 0)
    assert len(ended["nodes"]) == 2
    now = _json(ordinary_user, "status", ended["run"])
    assert (now["state"], now["job_id"], now["loss"]) == ("finished", ended["job_id"], ended["loss"])
    run = RunDir(Path(ended["run"]))
    assert run.path.stat().st_mode & 0o777 == 0o700
    hosts = {event.fields["rank"]: event.fields["host"] for event in read_ledger(run) if event.event == "start"}
    assert hosts[0] == hosts[1] != hosts[2] == hosts[3]
    lines = _json(ordinary_user, "logs", "--rank", "3", run.path)["lines"]
    assert any("global_rank=3" in line for line in lines)
    followed = ordinary_user.trainwright("logs", "-f", run.path)
    assert "global_rank=0" in followed.stdout
    assert submitit.SlurmJob(run.jobs, ended["job_id"]).result() == 0


@IN_MATRIX
def test_cancel_ends_all_ranks(dev_cluster: Path, ordinary_user: "User", users_run_file: Path) -> None:
    run, ranks = _started(ordinary_user, users_run_file)
    ended = _json(ordinary_user, "cancel", run.path)
    assert (ended["state"], ended["why"]) == ("cancelled", "cancelled by `trainwright cancel`")
    assert not [who["pid"] for who in ranks.values() if Path(f"/proc/{who['pid']}/exe").exists()]
    assert _json(ordinary_user, "cancel", run.path)["state"] == "cancelled"


@IN_MATRIX
def test_a_killed_rank_fails_the_run_and_is_named(
    dev_cluster: Path, ordinary_user: "User", users_run_file: Path
) -> None:
    run, ranks = _started(ordinary_user, users_run_file)
    os.kill(ranks[2]["pid"], signal.SIGKILL)
    assert wait_until(lambda: _json(ordinary_user, "status", run.path)["state"] != "running", 60, every_s=1)
    now = _json(ordinary_user, "status", run.path)
    assert (now["state"], now["failing_rank"]) == ("failed", 2)
    assert now["why"].startswith("rank 2: Killed, without a word of its own; crash: 0 restarts are allowed")
    assert now["log"] == str(run.rank_log(1, 2))


@IN_MATRIX
def test_scancel_from_outside_is_told(dev_cluster: Path, ordinary_user: "User", users_run_file: Path) -> None:
    run, _ = _started(ordinary_user, users_run_file)
    job_id = _json(ordinary_user, "status", run.path)["job_id"]
    ordinary_user.run(["scancel", job_id], {"SLURM_CONF": str(dev_cluster / "slurm.conf")})
    assert wait_until(lambda: _json(ordinary_user, "status", run.path)["state"] != "running", 60, every_s=1)
    assert _json(ordinary_user, "status", run.path)["why"] == "cancelled by somebody with scancel"


def test_a_refused_job_leaves_no_run(dev_cluster: Path, ordinary_user: "User", users_run_file: Path) -> None:
    done = ordinary_user.trainwright("submit", users_run_file, *_TWO_NODES, "cluster.exclude=no-such")
    assert done.returncode == 2
    assert done.stderr.startswith("trainwright: cluster: sbatch refused")
    assert done.stderr.count("\n") == 1
    assert not (users_run_file.parent / "runs").exists()


def test_waiting_jobs_are_queued_and_can_be_cancelled(
    dev_cluster: Path, ordinary_user: "User", users_run_file: Path
) -> None:
    """Nobody can use three nodes' worth of ranks here until somebody frees them: the first run holds all 16 CPUs."""
    fill = ("cluster.cpus_per_rank=4", *_TWO_NODES)
    first = _json(ordinary_user, "submit", users_run_file, _LONG, *fill)
    second = _json(ordinary_user, "submit", users_run_file, _LONG, *fill)
    assert second["run"] == first["run"] + "-2"
    deadline = time.monotonic() + 60
    while True:  # Slurm gives no reason until its scheduler has looked at the job
        now = _json(ordinary_user, "status", second["run"])
        assert now["state"] == "queued"
        if now["why"]:
            break
        assert time.monotonic() < deadline
    assert now["why"] in ("Slurm says Resources", "Slurm says Priority")
    assert _json(ordinary_user, "cancel", second["run"])["state"] == "cancelled"
    assert _json(ordinary_user, "cancel", first["run"])["state"] == "cancelled"
