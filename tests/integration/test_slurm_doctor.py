"""Doctor on real clusters: what it predicts is what canaries see; what a cluster cannot give is refused in one line."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from trainwright.cli.main import main
from trainwright.config.cluster import ClusterConfig
from trainwright.launchers import dev_cluster as cluster
from trainwright.launchers.dev_cluster import ClusterSettings
from trainwright.launchers.fair_share import read_priority
from trainwright.launchers.processes import wait_until

from .conftest import CLI

if TYPE_CHECKING:
    from .conftest import User

pytestmark = pytest.mark.slurm
_ACCOUNTS: Literal["none", "enforced"] = (
    "enforced" if shutil.which("slurmdbd", path="/usr/sbin:/usr/bin:/sbin") else "none"
)
_FIRST = ClusterSettings(
    preemption=True,
    grace_s=5,
    user_signal=True,
    kill_wait_s=5,
    gpus_per_node=4,
    max_time="01:00:00",
    max_array_size=11,
    accounting=_ACCOUNTS,
)
# Signal at preemption, grace time, KillWait, process tracking and accounts: no two clusters have the same.
_OTHERS = [
    ClusterSettings(preemption=True, grace_s=5, kill_wait_s=9, proctrack="pgid"),
    ClusterSettings(preemption=True, user_signal=True, kill_wait_s=2, proctrack="pgid", accounting="kept"),
    ClusterSettings(preemption=True, kill_wait_s=14),
]
_WHOLE = pytest.mark.skipif("WHOLE_MATRIX" not in os.environ, reason="part of `make test-matrix`")
Typed = Callable[..., tuple[int, str, str]]
_ALL_CANARIES = ("--canary", "--canary-time-limit", "--canary-preempt", "urgent")

_IMPOSSIBLE = (
    ("partition=gpus", "cluster.partition: gpus is not on this cluster; use one of main, urgent"),
    ("gpus_per_node=5", "cluster.gpus_per_node: 5, which no node has; they have h100 (4 per node)"),
    ("gpu_type=b200", "cluster.gpu_type: b200 is on no node of the partition; it has h100 (4 per node)"),
    ("memory_per_node=90T", "cluster.memory_per_node: 90T, which no node has; at most "),
    ("cpus_per_rank=5", "cluster.cpus_per_rank: 5 x 2 ranks = 10 cores, which no node has; at most 8 per node"),
    ("time_limit=2-00", "cluster.time_limit: 2-00, but MaxTime is 01:00:00 in main; ask for less time"),
    ("nodes=3", "cluster.nodes: 3, but 2 nodes have"),
    ("constraint=nvlink", "cluster.constraint: nvlink is a feature of no node; there are none"),
    ("account=none-such", "cluster.account: there is no none-such for you here; use one of root"),
    ("qos=silver", "cluster.qos: there is no silver for you here; use one of gold, normal"),
)


@dataclass(frozen=True)
class Place:
    """A cluster of a test's own, and a user who may use it."""

    folder: Path
    user: "User"

    def trainwright(self, *words: str) -> "subprocess.CompletedProcess[str]":
        variables = {"TRAINWRIGHT_DEV_CLUSTER": str(self.folder)}
        return self.user.run([*CLI, *words], variables, timeout_s=500)

    def doctor(self, *words: str) -> dict[str, Any]:
        """The report, of a command that ended as it should."""
        done = self.trainwright("doctor", "--profile", "dev", "--json", *words)
        assert done.stdout, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if report["fine"] else 3), done.stderr
        return report


@contextmanager
def _cluster(settings: ClusterSettings, user: "User") -> Iterator[Place]:
    folder = Path("/tmp") / f"trainwright-doctor-{os.getpid()}-{settings.proctrack}-{settings.kill_wait_s}"
    try:
        cluster.up(folder, num_nodes=2, settings=settings)
        if settings.accounting != "none":
            for words in (["add", "account", "lab"], ["add", "qos", "gold"], ["add", "user", user.name, "account=lab"]):
                environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
                subprocess.run(["sacctmgr", "-i", *words], env=environment, capture_output=True, timeout=60, check=True)
        yield Place(folder, user)
    finally:
        cluster.down(folder)


@pytest.fixture(scope="module")
def place(ordinary_user: "User") -> Iterator[Place]:
    with _cluster(_FIRST, ordinary_user) as made:
        yield made


@pytest.fixture
def typed(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Run a command in this process, on the cluster: its exit code, and what it prints on stdout and stderr."""
    monkeypatch.setenv("TRAINWRIGHT_DEV_CLUSTER", str(place.folder))

    def run(*words: str) -> tuple[int, str, str]:
        try:
            code: object = main(words)
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr()
        return int(str(code)), said.out, said.err

    return run


@pytest.mark.skipif(_ACCOUNTS == "none", reason="needs slurmdbd and MariaDB")
def test_fair_share_and_why_a_job_waits(place: Place, typed: Typed, run_file: Path) -> None:
    code, said, error = typed("plan", str(run_file), "cluster.profile=dev")
    assert code == 0, error
    assert re.search(
        r"^fair share  [01]\.\d{3} of 1 in account root \(shares \d+\.\d%, used \d+\.\d%\)$", said, re.M
    ), said
    environment = {**os.environ, "SLURM_CONF": str(place.folder / "slurm.conf")}
    hold = ["sbatch", "--parsable", "--exclusive", "--nodes=2", "--output=/dev/null", "--wrap=sleep 60"]
    jobs = [subprocess.run(hold, env=environment, capture_output=True, text=True).stdout.strip() for _ in range(2)]
    at = ClusterConfig(scheduler="slurm", slurm_conf=environment["SLURM_CONF"])
    try:
        assert wait_until(lambda: read_priority(at, jobs[1]) is not None, 30)
        priority = read_priority(at, jobs[1])
        assert priority is not None
        assert priority.total == sum(priority.factors.values()) > 0
        assert set(priority.factors) <= {"age", "fair share"}
    finally:
        subprocess.run(["scancel", *jobs], env=environment, check=True)


def test_a_canary_sees_what_was_predicted(place: Place) -> None:
    whole = "WHOLE_MATRIX" in os.environ
    _check(place.doctor(*(_ALL_CANARIES if whole else ("--canary",))), whole)


@_WHOLE
@pytest.mark.parametrize("settings", _OTHERS, ids=lambda settings: f"{settings.proctrack}-{settings.kill_wait_s}")
def test_so_it_does_on_other_clusters(settings: ClusterSettings, ordinary_user: "User") -> None:
    if settings.accounting != "none" and _ACCOUNTS == "none":
        pytest.skip("needs slurmdbd and MariaDB")
    with _cluster(settings, ordinary_user) as place:
        _check(place.doctor(*_ALL_CANARIES), whole=True)


def test_the_report_is_short_and_names_lines(typed: Typed) -> None:
    code, printed, _ = typed("doctor", "--profile", "dev", "--save-time", "8")
    assert code == 0, printed
    for words in (
        "a preempted job gets SIGUSR2 and surely has 10 s until SIGKILL; a save takes 8 s",
        "PreemptType = preempt/partition_prio, PartitionName=main PreemptMode=REQUEUE PriorityTier=1 GraceTime=5",
        "SlurmctldParameters = preempt_send_user_signal",
        "ProctrackType = proctrack/linuxproc",
        "2 nodes with 4 h100",
        "batch, rank, child, detached  CONT at 0 s, TERM at 0 s, SIGKILL at 5 s",
        "gpus_per_node: 4",
    ):
        assert words in printed
    assert printed.count("\n") < 70
    assert typed("doctor", "--profile", "dev")[0] == 3  # 60 s do not fit into 10


def test_the_profile_that_it_writes_is_one(typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    write = ("doctor", "--profile", "dev", "--save-time", "8", "--write-profile", "mine")
    path = tmp_path / "trainwright" / "profiles" / "mine.yaml"
    code, _, error = typed(*write)
    assert (code, error) == (0, f"wrote {path}\n")
    code, printed, _ = typed("doctor", "--profile", "mine", "--json")
    assert json.loads(printed)["profile"]["gpus_per_node"] == 4
    code, _, error = typed(*write)
    assert (code, error) == (2, f"trainwright: --write-profile: {path} exists; remove it, or give another name\n")


def test_a_partition_that_is_not_there(typed: Typed) -> None:
    code, _, error = typed("doctor", "--profile", "dev", "--canary-preempt", "urgnt")
    assert (code, error.count("\n")) == (2, 1)
    assert "--canary-preempt: urgnt is not on this cluster; use one of main, urgent" in error


@pytest.mark.parametrize("command", ["plan", "submit"])
def test_what_the_cluster_cannot_give_is_one_line(command: str, typed: Typed, trainable: Path) -> None:
    words = [command, str(trainable), "cluster.profile=dev", "train.global_batch_size=24", "cluster.gpus_per_node=1"]
    for field, said in _IMPOSSIBLE:
        if _ACCOUNTS == "none" and field.startswith(("account", "qos")):
            continue
        code, _, error = typed(*words, f"cluster.{field}")
        assert (code, error.count("\n")) == (2, 1), error
        assert said in error
    assert not (trainable.parent / "runs").exists()


def test_plan_says_when_slurm_would_start_it(typed: Typed, trainable: Path) -> None:
    """And nothing is submitted."""
    words = ["plan", str(trainable), "cluster.profile=dev", "train.global_batch_size=24", "cluster.time_limit=null"]
    code, printed, error = typed(*words, "--json")
    assert code == 0, error
    job = json.loads(printed)["job"]
    assert job["start"]["time"], job["start"]
    assert job["start"]["partition"] == "main"
    assert job["estimates"]["hours_at_most"]["value"] == 2  # the partition's MaxTime, an hour, of 2 ranks
    assert not (trainable.parent / "runs").exists()


def test_without_a_controller_it_says_so(ordinary_user: "User", tmp_path: Path) -> None:
    done = ordinary_user.trainwright("doctor", "--profile", "dev", variables={"TRAINWRIGHT_DEV_CLUSTER": "/nowhere"})
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "/nowhere/slurm.conf does not exist; start the dev cluster" in done.stderr
    done = ordinary_user.trainwright("doctor")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "doctor: the controller does not answer" in done.stderr


def _check(report: dict[str, Any], whole: bool) -> None:
    assert report["differences"] == []
    events = {"step_signal", "lead_signal", "cancel"} | ({"time_limit", "preemption"} if whole else set())
    assert {seen["event"] for seen in report["observed"]} == events
    assert {told["event"] for told in report["predicted"]} >= events
    for event in events:  # equal is more than nothing seen where nothing was told
        assert any(seen["signals"] for seen in report["observed"] if seen["event"] == event)
