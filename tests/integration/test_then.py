"""What follows a run on a real Slurm: not before it has finished, however often it starts, and not if it never does."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trainwright.launchers.processes import wait_until

from .faulty_runs import ToyProject, ToyRun, toy_files
from .real_runs import IN_MATRIX

if TYPE_CHECKING:
    from .conftest import User

pytestmark = [pytest.mark.slurm, pytest.mark.ranks]
_SMALL = ("cluster.nodes=1", "train.steps=60")


@pytest.fixture(scope="module")
def project(
    dev_cluster: Path, ordinary_user: "User", small_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ToyProject]:
    made = ToyProject.make(ordinary_user, toy_files(tmp_path_factory.mktemp("toy"), small_store), dev_cluster)
    yield made
    ordinary_user.run(["rm", "-rf", made.folder])


def _jobs(run: ToyRun, *job_ids: str) -> dict[str, str]:
    lines = run.slurm("squeue", "--noheader", "--states=all", f"--jobs={','.join(job_ids)}", "--format=%i %T")
    return dict(line.split() for line in lines.splitlines())


def _endpoints(run: ToyRun) -> list[dict[str, Any]]:
    done = run.project.user.trainwright("serve", "--list", "--json")
    assert done.returncode == 0, done.stderr
    return [row for row in json.loads(done.stdout)["endpoints"] if row["folder"] == str(run.run.endpoint)]


@IN_MATRIX
def test_the_export_waits_through_a_requeue(project: ToyProject) -> None:
    run = project.submit(*_SMALL, "--then", "export")
    run.fault(1, "at 50 exit 1")
    then = run.status()["then"]
    assert then == {"export_job": then["export_job"], "serve_job": None, "endpoint": None}
    assert wait_until(lambda: run.attempts() == 2, 120), run.explain()
    assert _jobs(run, then["export_job"]) == {then["export_job"]: "PENDING"}
    run.release()
    assert run.finish()["state"] == "finished", run.explain()
    folder = run.run.export / "step-00000060"
    assert wait_until((folder / "trainwright.json").is_file, 90), run.explain()
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"


def test_nothing_follows_a_run_that_saved_and_was_not_to_go_on(project: ToyProject) -> None:
    (project.folder / "faults" / "hold").touch()
    run = project.submit(*_SMALL, "--then", "export", "--then", "serve --name of-toy")
    then = run.status()["then"]
    assert then["endpoint"] == "of-toy"
    run.reach(50)
    assert [row["state"] for row in _endpoints(run)] == ["starting"]
    with ThreadPoolExecutor(1) as pool:
        cancel = pool.submit(project.user.trainwright, "cancel", "--save", run.run.path, "--json")
        assert wait_until(lambda: "got SIGUSR2" in run.run.batch_log(1).read_text(), 60), run.explain()
        run.release()
        assert json.loads(cancel.result().stdout)["state"] == "cancelled", cancel.result().stderr
    jobs = (then["export_job"], then["serve_job"])
    assert wait_until(lambda: "PENDING" not in _jobs(run, *jobs).values(), 120, every_s=1), run.explain()
    assert _jobs(run, *jobs).get(then["serve_job"], "CANCELLED") == "CANCELLED"
    assert not run.run.export.exists()
    logs = run.run.jobs / "export"
    for log in logs.glob("00000.log"):  # none if Slurm itself saw that the run was cancelled
        assert "is cancelled at step" in log.read_text()
    assert [row["state"] for row in _endpoints(run)] == ["dead"]


@IN_MATRIX
def test_an_endpoint_of_that_name_lives_and_the_run_goes_on(project: ToyProject) -> None:
    (project.folder / "faults" / "hold").touch()
    first = project.submit(*_SMALL, "--then", "serve --name taken")
    more = ("--then", "serve --name taken", "--json")
    variables = {"TOY_FAULTS": str(project.folder / "faults")}
    python = f"cluster.python={project.folder / 'python'}"
    done = project.user.trainwright(
        "submit", project.folder / "run.yaml", python, "name=second", *_SMALL, *more, variables=variables
    )
    assert done.returncode == 2
    assert "'taken' is being served already" in done.stderr
    assert "run second itself is submitted as Slurm job" in done.stderr
    assert len(first.slurm("squeue", "--noheader", "--format=%i").split()) == 4, "its export and endpoint, and two runs"
    for name in (first.run.path, project.folder / "runs" / "second"):
        assert project.user.trainwright("cancel", name).returncode == 0
