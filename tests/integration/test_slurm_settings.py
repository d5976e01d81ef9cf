"""The dev cluster's settings do what Slurm says of them, and its faults are those of real clusters."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainwright.config.errors import UserError
from trainwright.launchers import dev_cluster as cluster
from trainwright.launchers.dev_cluster import ClusterSettings, faults
from trainwright.launchers.processes import wait_until

from .real_runs import IN_MATRIX

pytestmark = pytest.mark.slurm
_FAST = ClusterSettings(
    preemption=True,
    grace_s=2,
    user_signal=True,
    kill_wait_s=3,
    slurmd_timeout_s=5,
    job_requeue=True,
    max_array_size=11,
    proctrack="pgid",
    gpus_per_node=4,
    max_time="01:00:00",
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    place = Path("/tmp") / f"trainwright-settings-{os.getpid()}"
    cluster.up(place, num_nodes=2, settings=_FAST)
    yield place
    cluster.down(place)


def test_slurm_says_what_was_set(folder: Path) -> None:
    shown = " ".join(_slurm(folder, "scontrol", "show", "config").split())
    for line in (
        "PreemptMode = REQUEUE",
        "PreemptType = preempt/partition_prio",
        "SlurmctldParameters = preempt_send_user_signal",
        "KillWait = 3 sec",
        "SlurmdTimeout = 5 sec",
        "JobRequeue = 1",
        "MaxArraySize = 11",
        "ProctrackType = proctrack/pgid",
    ):
        assert line in shown
    main, urgent = _slurm(folder, "scontrol", "--oneliner", "show", "partition").strip().split("\n")
    assert "GraceTime=2" in main
    assert "MaxTime=01:00:00" in main
    assert "PriorityTier=10" in urgent
    with pytest.raises(UserError, match="up with kill_wait_s 3, not 10"):
        cluster.up(folder, 2, settings=ClusterSettings(**{**vars(_FAST), "kill_wait_s": 10}))


def test_gpus_are_given_to_jobs(folder: Path) -> None:
    assert _slurm(folder, "srun", "--gpus-per-node=h100:2", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES") == "0,1\n"


@IN_MATRIX
def test_urgent_jobs_preempt_those_of_main_after_the_grace_time(folder: Path) -> None:
    log = folder / "state" / "preempted"
    script = f"trap 'echo USR2 $(date +%s.%N) >> {log}' USR2; echo ready >> {log}; while :; do sleep 0.1; done"
    options = ["--parsable", "--exclusive", "--nodes=2", "--requeue", "--signal=B:USR2@30", "--output=/dev/null"]
    job = _slurm(folder, "sbatch", *options, f"--wrap={script}").strip()
    _until(lambda: log.exists())
    _slurm(folder, "srun", "--partition=urgent", "--nodes=1", "true")
    ran = time.time()
    first = log.read_text().split()
    assert first[:2] == ["ready", "USR2"]
    assert ran - float(first[2]) > 1.5  # a grace time of 2 s lies between the signal and the nodes' being free
    _until(lambda: "PENDING" in _slurm(folder, "squeue", "--noheader", "--format=%T", f"--jobs={job}"))
    _slurm(folder, "scancel", job)


@IN_MATRIX
def test_a_node_that_is_cut_off_or_killed_goes_down_and_comes_back(folder: Path) -> None:
    names = faults.names_of(folder)
    first, second = names.nodes
    mark = folder / "state" / "orphan"
    wrap = f"echo $$ > {mark}; exec sleep 4243"
    _slurm(folder, "sbatch", "--no-requeue", f"--nodelist={second}", "--output=/dev/null", f"--wrap={wrap}")
    _until(lambda: mark.exists() and mark.read_text() != "")
    faults.cut(names, first)
    faults.kill_node(names, second)
    assert cluster.status(folder).daemons == {"munged": True, names.controller: True, first: True, second: False}
    _until(lambda: set(cluster.status(folder).nodes.values()) <= {"down", "down*"})
    assert Path(f"/proc/{int(mark.read_text())}/exe").exists()  # nobody ends what a killed node's job had started
    faults.mend(names, first)
    faults.revive_node(names, second)
    _until(lambda: cluster.status(folder).state == "up")
    assert len(_slurm(folder, "srun", "--nodes=2", "hostname").split()) == 2
    os.kill(int(mark.read_text()), signal.SIGKILL)


def test_a_controller_that_is_started_again_knows_its_jobs(folder: Path) -> None:
    names = faults.names_of(folder)
    job = _slurm(folder, "sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 300").strip()
    faults.restart_controller(names)
    assert cluster.status(folder).daemons[names.controller]
    assert _slurm(folder, "squeue", "--noheader", "--format=%i", f"--jobs={job}").strip() == job
    _slurm(folder, "scancel", job)


def test_faults_name_what_they_need(folder: Path) -> None:
    names = faults.names_of(folder)
    with pytest.raises(UserError, match="node9: is no node of the dev cluster; give one of twdev"):
        faults.cut(names, "node9")
    with pytest.raises(UserError, match="there is no dev cluster in it"):
        faults.names_of(folder / "nothing")
    with pytest.raises(UserError, match="grace time without preemption would do nothing; add --preemption"):
        ClusterSettings(grace_s=5)


@pytest.mark.skipif(not shutil.which("slurmdbd", path="/usr/sbin:/usr/bin"), reason="needs slurmdbd and MariaDB")
@pytest.mark.parametrize("loopback", [True])
def test_accounts_are_kept(loopback: bool) -> None:
    place = Path("/tmp") / f"trainwright-accounts-{os.getpid()}"
    try:
        cluster.up(place, 1, loopback, ClusterSettings(accounting="kept", gpus_per_node=1))
        _slurm(place, "srun", "--gpus-per-node=1", "--job-name=counted", "true")
        fields = ["--noheader", "--parsable2", "--allusers", "--format=JobName,State,AllocTRES"]
        _until(lambda: "counted|COMPLETED" in _slurm(place, "sacct", "-X", *fields))
        assert "gres/gpu=1" in _slurm(place, "sacct", "-X", *fields)
        pids = [pid for _, pid, _ in json.loads((place / "cluster.json").read_text())["daemons"]]
    finally:
        cluster.down(place)
    assert not [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]
    assert not place.exists()


def _slurm(folder: Path, *command: str) -> str:
    environment = {"PATH": os.environ["PATH"], "SLURM_CONF": str(folder / "slurm.conf")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=True)
    return done.stdout


def _until(true: Callable[[], bool]) -> None:
    assert wait_until(true, 60, every_s=0.2)
