"""Tasks as real Slurm jobs: ranks find each other across nodes, results come back, one death ends all."""

import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import submitit

from trainwright.config.errors import UserError
from trainwright.launchers.job import SubmittedTask, submit_task
from trainwright.launchers.processes import wait_until
from trainwright.launchers.slurm import Slurm

if TYPE_CHECKING:
    from tests.integration.conftest import User

pytestmark = pytest.mark.slurm
_TASKS = Path(__file__).with_name("rank_tasks.py")


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[ModuleType]:
    """rank_tasks.py as a top-level module, as the jobs will import it."""
    shutil.copy(_TASKS, tmp_path)
    spec = importlib.util.spec_from_file_location("rank_tasks", tmp_path / _TASKS.name)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["rank_tasks"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["rank_tasks"]


def test_four_ranks_of_an_ordinary_user_reduce_across_two_nodes(dev_cluster: Path, ordinary_user: "User") -> None:
    """In a folder whose name needs every kind of quoting, from a shell full of variables that must not leak."""
    folder = ordinary_user.home / "it's 100% odd"
    folder.mkdir(mode=0o700)
    shutil.copy(_TASKS, folder)
    ordinary_user.own(folder)
    leaks = {"SLURM_CPU_BIND": "none", "SBATCH_PARTITION": "no-such", "MY_SECRET": "hush", "PASSED_ON": "yes"}
    done = ordinary_user.run([sys.executable, folder / _TASKS.name, folder], leaks)
    assert done.returncode == 0, done.stderr
    ranks = json.loads(done.stdout.splitlines()[-1])  # Submitit says before that there is no sacct
    assert [rank["rank"] for rank in ranks] == [0, 1, 2, 3]
    assert [rank["sum"] for rank in ranks] == [10] * 4
    hosts = [rank["host"] for rank in ranks]
    assert hosts[0] == hosts[1] != hosts[2] == hosts[3]
    for rank in ranks:
        seen = rank["variables"]
        assert seen["PASSED_ON"] == "yes"
        assert "MY_SECRET" not in seen
        assert "SBATCH_PARTITION" not in seen
        assert (seen["RANK"], seen["WORLD_SIZE"]) == (str(rank["rank"]), "4")
        assert (seen["LOCAL_RANK"], seen["LOCAL_WORLD_SIZE"]) == (str(rank["rank"] % 2), "2")
        assert seen["MASTER_ADDR"] == hosts[0]
        assert seen["GLOO_SOCKET_IFNAME"] == "eth0"
        assert seen["OMP_NUM_THREADS"] == "1"
    assert len({rank["variables"]["MASTER_PORT"] for rank in ranks}) == 1
    assert "hush" not in "".join(path.read_text(errors="replace") for path in (folder / "jobs").glob("*.sh"))


@pytest.mark.parametrize(("how", "exit_code"), [("killed", 137), ("unwell", 86)])
def test_one_dead_rank_ends_the_job(
    dev_cluster: Path, tasks: ModuleType, tmp_path: Path, how: str, exit_code: int
) -> None:
    cluster = tasks.dev_place()
    task = submit_task(tasks.spec(tmp_path, cluster, tasks.one_dies, how))
    began = time.monotonic()
    assert _end(task, Slurm(cluster)) == "FAILED"
    assert time.monotonic() - began < 60
    log = (tmp_path / "logs" / "batch.log").read_text()
    assert ("task 1: Killed" if how == "killed" else f"task 1: Exited with exit code {exit_code}") in log
    if how == "unwell":
        with pytest.raises(submitit.core.utils.FailedJobError, match="this node is unwell"):
            submitit.SlurmJob(tmp_path / "jobs", task.job_id, tasks=[0, 1]).task(1).result()


def test_each_rank_has_its_own_log(dev_cluster: Path, tasks: ModuleType, tmp_path: Path) -> None:
    cluster = tasks.dev_place()
    task = submit_task(tasks.spec(tmp_path, cluster, tasks.tell_rank))
    assert _end(task, Slurm(cluster)) == "COMPLETED"
    for rank in range(4):
        assert f"this is rank {rank}\n" in (tmp_path / "logs" / f"{rank:05d}.log").read_text()


def test_sbatchs_refusal_is_one_line_and_leaves_no_script(dev_cluster: Path, tasks: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^cluster: sbatch refused \(error: .*[Ii]nvalid node name"):
        submit_task(tasks.spec(tmp_path, tasks.dev_place(exclude="no-such"), tasks.tell_rank))
    assert not list((tmp_path / "jobs").glob(".submission*"))


def _end(task: SubmittedTask, slurm: Slurm) -> str:
    """Slurm's word for the job once it is over."""
    assert task.job_id is not None
    job_id = task.job_id

    def state() -> str:
        return slurm.jobs([job_id])[job_id].state

    assert wait_until(lambda: state() not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"), 90, every_s=0.5)
    return state()
