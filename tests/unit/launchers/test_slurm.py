"""Slurm's host lists and squeue's lines, and what this machine says where there is no Slurm."""

import os
from pathlib import Path

import pytest

from trainwright.config.cluster import ClusterConfig
from trainwright.config.errors import UserError
from trainwright.launchers.slurm import JobInfo, Slurm, SlurmUnreachable, expand_hosts, own_job_id

from .conftest import write_command


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("login", ["login"]),
        ("a,b", ["a", "b"]),
        ("gpu[01-03]", ["gpu01", "gpu02", "gpu03"]),
        ("gpu[08-11,20]", ["gpu08", "gpu09", "gpu10", "gpu11", "gpu20"]),
        ("r[1-2]n[1-2]-x,login", ["r1n1-x", "r1n2-x", "r2n1-x", "r2n2-x", "login"]),
        ("twdev0-node[1-2]", ["twdev0-node1", "twdev0-node2"]),
        ("", []),
    ],
)
def test_host_lists(text: str, hosts: list[str]) -> None:
    assert expand_hosts(text) == hosts


def test_jobs_that_squeue_forgot_are_asked_of_sacct(commands: Path) -> None:
    write_command(commands, "squeue", "echo '7|PENDING|Priority|'; echo '8|RUNNING|None|gpu[1-2]'")
    write_command(commands, "sacct", "echo '9|CANCELLED by 1000|None|None assigned'")
    found = Slurm(ClusterConfig()).jobs(["7", "8", "9", "10"])
    assert found == {
        "7": JobInfo(state="PENDING", reason="Priority"),
        "8": JobInfo(state="RUNNING", nodes="gpu[1-2]"),
        "9": JobInfo(state="CANCELLED"),
    }


def test_of_an_array_only_the_tasks_asked_for_are_told(commands: Path) -> None:
    write_command(commands, "squeue", "echo '9_0|RUNNING|None|gpu1'; echo '9_1|PENDING|JobArrayTaskLimit|'")
    assert list(Slurm(ClusterConfig(scheduler="slurm")).jobs(["9_1"])) == ["9_1"]


def test_a_task_of_an_array_is_not_called_by_the_id_that_means_all() -> None:
    assert own_job_id({"SLURM_JOB_ID": "9"}) == "9"
    assert own_job_id({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "4"}) == "9_4"
    assert own_job_id({}) is None


def test_a_job_nobody_knows_is_left_out(commands: Path) -> None:
    write_command(commands, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    write_command(commands, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert Slurm(ClusterConfig()).jobs(["7"]) == {}


def test_a_silent_controller_is_told_from_an_unknown_job(commands: Path) -> None:
    write_command(commands, "squeue", "echo 'Unable to contact slurm controller (connect failure)' >&2; exit 1")
    with pytest.raises(SlurmUnreachable, match="Unable to contact"):
        Slurm(ClusterConfig()).jobs(["7"])


def test_no_sbatch_here_says_where_to_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no sbatch on this machine; submit from a login node"):
        Slurm(ClusterConfig(scheduler="slurm")).check()


def test_missing_dev_cluster_says_how_to_start_it(commands: Path) -> None:
    write_command(commands, "sbatch", "exit 1")
    with pytest.raises(UserError, match="does not exist; start the dev cluster with `trainwright cluster dev up`"):
        Slurm(ClusterConfig(scheduler="slurm", slurm_conf="/nowhere/slurm.conf")).check()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_strangers_slurm_conf_is_refused(commands: Path, tmp_path: Path) -> None:
    write_command(commands, "sbatch", "exit 1")
    conf = tmp_path / "slurm.conf"
    conf.touch()
    os.chown(conf, 12345, 12345)
    with pytest.raises(UserError, match="belongs to user 12345"):
        Slurm(ClusterConfig(scheduler="slurm", slurm_conf=str(conf))).check()
