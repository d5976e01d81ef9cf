"""`status` of a hundred runs on a real Slurm: one squeue; and none at all for a run whose end is recorded."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainwright.config.rundir import RunDir
from trainwright.tracking.ledger import LedgerWriter

from .faulty_runs import ToyProject, ToyRun, toy_files
from .real_runs import WHOLE

if TYPE_CHECKING:
    from .conftest import Done, User

pytestmark = [pytest.mark.slurm, pytest.mark.ranks]
_WAITING = 100 if WHOLE else 30
_SQUEUE = '#!/bin/sh\necho "$*" >> "{calls}"\nexec {squeue} "$@"\n'


@dataclass(frozen=True)
class Counter:
    """A squeue of the user's that counts its calls and is the real one otherwise."""

    user: "User"
    folder: Path

    @staticmethod
    def make(user: "User", folder: Path) -> "Counter":
        folder.mkdir()
        text = _SQUEUE.format(calls=folder / "calls", squeue=shutil.which("squeue"))
        (folder / "squeue").write_text(text)
        (folder / "squeue").chmod(0o755)
        user.own(folder)
        return Counter(user, folder)

    def status(self, runs: Path, *words: str) -> "tuple[Done, int]":
        """`status` as this user, and how often it called squeue."""
        (self.folder / "calls").unlink(missing_ok=True)
        variables = {"PATH": f"{self.folder}:{os.environ['PATH']}", "TRAINWRIGHT_RUNS": str(runs)}
        done = self.user.trainwright("status", *words, variables=variables)
        assert done.returncode == 0, done.stderr
        calls = self.folder / "calls"
        return done, len(calls.read_text().splitlines()) if calls.exists() else 0


def _jobs_that_wait(user: "User", conf: Path) -> list[str]:
    submit = "sbatch --parsable --hold --output=/dev/null --wrap=true"
    done = user.run(["bash", "-c", f"for _ in $(seq {_WAITING}); do {submit}; done"], {"SLURM_CONF": str(conf)})
    jobs = done.stdout.split()
    assert len(jobs) == _WAITING, done.stderr
    return jobs


def _run_of(job_id: str, like: ToyRun) -> None:
    """A run whose ledger says that it is this job."""
    run = RunDir(like.run.path.parent / f"waits-{job_id}")
    run.path.mkdir()
    shutil.copy(like.run.run_yaml, run.run_yaml)
    LedgerWriter(run, run.next_attempt(), "submit").write("submit", scheduler="slurm", job_id=job_id, world_size=2)


def test_status_of_many(
    dev_cluster: Path, ordinary_user: "User", small_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project = ToyProject.make(ordinary_user, toy_files(tmp_path_factory.mktemp("toy"), small_store), dev_cluster)
    squeue = Counter.make(ordinary_user, project.folder / "counter")
    ended = project.submit("cluster.nodes=1", "name=ended", "train.steps=10")
    jobs = _jobs_that_wait(ordinary_user, project.conf)
    running = project.submit("cluster.nodes=1", "name=running")
    for job_id in jobs:
        _run_of(job_id, ended)
    runs = project.folder / "runs"
    ordinary_user.own(runs)
    assert ended.finish()["state"] == "finished"
    running.reach(10)
    try:
        done, calls = squeue.status(runs, "--json")
        states = {Path(run["run"]).name: run["state"] for run in json.loads(done.stdout)["runs"]}
        assert states == {"ended": "finished", "running": "running", **{f"waits-{job}": "queued" for job in jobs}}
        assert calls == 1
        done, calls = squeue.status(runs, "ended")
        assert "finished" in done.stdout
        assert calls == 0
        done, calls = squeue.status(runs, "ended", "running")
        assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [
            ["ended", "finished"],
            ["running", "running"],
        ]
        assert calls == 1
    finally:
        running.slurm("scancel", *jobs)
        running.release()
    assert running.finish()["state"] == "finished"
