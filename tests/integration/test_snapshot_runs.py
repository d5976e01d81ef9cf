"""Jobs that wait in a real Slurm's queue while the code and files that they were submitted from change."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trainwright.launchers.snapshot import PACKAGES

from .faulty_runs import ToyProject, ToyRun, curve, toy_files

if TYPE_CHECKING:
    from .conftest import User

pytestmark = [pytest.mark.slurm, pytest.mark.ranks]
_ROOT = Path(__file__).parents[2]
_MARK = "this was not submitted"
_ONE_RANK = ("cluster.nodes=1", "cluster.ranks_per_node=1", "train.steps=100")


@contextmanager
def _queue_stands(cluster: Path) -> Iterator[None]:
    """Meanwhile no job starts."""

    def set_partition(state: str) -> None:
        environment = {**os.environ, "SLURM_CONF": str(cluster / "slurm.conf")}
        subprocess.run(["scontrol", "update", "PartitionName=main", f"State={state}"], env=environment, check=True)

    set_partition("DOWN")
    try:
        yield
    finally:
        set_partition("UP")


def _copy_of_the_code(folder: Path) -> Path:
    """The packages, as an installation has them, where they can be edited."""
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(_ROOT / package, folder / "trainwright" / package, ignore=ignored)
    return folder


def _edit_everything(project: ToyProject, code: Path) -> None:
    """What a researcher does while a job waits: other code, another model, another tokenizer."""
    for path in code.rglob("*.py"):
        if path.parent.name in ("launchers", "parallelism"):
            path.write_text(f"raise SystemExit('{_MARK}')\n")
    (project.folder / "model" / "config.json").write_text("{}")
    (project.folder / "run.yaml").unlink()


@pytest.fixture(scope="module")
def runs(
    dev_cluster: Path, ordinary_user: "User", small_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ToyRun, ToyRun]]:
    """Two runs of the same code that waited meanwhile; the snapshot of the second was changed."""
    files = toy_files(tmp_path_factory.mktemp("toy"), small_store)
    project = ToyProject.make(ordinary_user, files, dev_cluster)
    code = _copy_of_the_code(project.folder / "code")
    ordinary_user.own(project.folder)
    with _queue_stands(dev_cluster):
        kept, changed = (project.submit(*_ONE_RANK, variables={"PYTHONPATH": str(code)}) for _ in range(2))
        assert kept.run.code.resolve() == changed.run.code.resolve(), "they share one"
        _edit_everything(project, code)
        file = changed.run.model_config
        file.chmod(0o644)
        file.write_text(file.read_text() + "\n")
        assert kept.status()["state"] == changed.status()["state"] == "queued"
    yield kept, changed
    shutil.rmtree(project.folder, ignore_errors=True)


def test_edits_change_nothing_in_the_queue_and_after_a_requeue(runs: tuple[ToyRun, ToyRun]) -> None:
    run = runs[0]
    run.reach(50, timeout_s=240)
    shutil.rmtree(run.project.folder / "code")
    os.kill(run.pids(1)[0], signal.SIGKILL)
    run.release()
    assert run.finish()["state"] == "finished", run.explain()
    assert run.causes() == ["crash", "finished"]
    assert sorted(curve(run.run)) == list(range(1, 101))
    assert _MARK not in run.explain()


def test_a_changed_snapshot_is_not_run_and_the_file_is_named(runs: tuple[ToyRun, ToyRun]) -> None:
    run = runs[1]
    now = run.finish()
    assert (now["state"], now["code"]) == ("failed", 3), run.explain()
    assert now["why"].startswith(f"{run.run.model_config} was changed after the run was submitted; ")
    assert run.causes() == ["mistake"]
    assert not run.events("start"), "no rank was started"
    done = run.project.user.trainwright("submit", run.run.path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert f"{run.run.model_config}: was changed after" in done.stderr


def test_status_says_what_it_is_made_of(runs: tuple[ToyRun, ToyRun]) -> None:
    run = runs[0]
    about: dict[str, Any] = run.status()["snapshot"]
    assert about["sha256"] == json.loads(run.run.code_digest.read_text())["sha256"]
    assert [event.fields["snapshot"] for event in run.events("submit")] == [about["sha256"]]
    assert about["commit"] is None, "the user's home is no work tree"
