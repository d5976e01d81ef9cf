"""The dev cluster itself: up, found up, down without a trace, in both forms, beside another one."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainwright.config.errors import UserError
from trainwright.launchers import dev_cluster as cluster

if TYPE_CHECKING:
    from tests.integration.conftest import User

pytestmark = pytest.mark.slurm


@pytest.fixture
def folder() -> Iterator[Path]:
    place = Path("/tmp") / f"trainwright-updown-{os.getpid()}"
    yield place
    cluster.down(place)


@pytest.mark.parametrize("loopback", [False, True])
def test_up_runs_a_job_and_down_leaves_nothing(folder: Path, loopback: bool) -> None:
    now = cluster.up(folder, num_nodes=2, loopback=loopback)
    assert now.state == "up"
    assert len(now.nodes) == 2
    assert now.form == ("loopback" if loopback else "namespaces")
    printed = _srun(folder, "--nodes=2", "--ntasks=2", "sh", "-c", "echo $SLURMD_NODENAME")
    assert sorted(printed.split()) == sorted(now.nodes)
    pids = [pid for _, pid, _ in json.loads((folder / "cluster.json").read_text())["daemons"]]
    assert cluster.down(folder) is True
    assert not folder.exists()
    assert cluster.down(folder) is False
    name = next(iter(now.nodes)).partition("-")[0]  # other clusters may come and go meanwhile
    assert name not in Path("/etc/hosts").read_text()
    assert f" {name}:" not in _links()
    assert not [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]


def test_up_again_finds_it_up_and_refuses_another_size(folder: Path) -> None:
    first = cluster.up(folder, num_nodes=1)
    before = (folder / "cluster.json").read_text()
    assert cluster.up(folder, num_nodes=1) == first
    assert (folder / "cluster.json").read_text() == before
    with pytest.raises(UserError, match="--nodes: 3, but 1 are up"):
        cluster.up(folder, num_nodes=3)


def test_down_ends_jobs_too(folder: Path) -> None:
    cluster.up(folder, num_nodes=1)
    script = 'sleep 4242 & echo $! > "$0"; wait'
    mark = folder / "state" / "pid"
    _slurm(folder, "sbatch", "--output=/dev/null", f"--wrap=sh -c '{script}' {mark}")
    subprocess.run(["timeout", "20", "sh", "-c", f"until [ -s {mark} ]; do sleep 0.1; done"], check=True)
    pid = int(mark.read_text())
    assert Path(f"/proc/{pid}/exe").exists()
    cluster.down(folder)
    assert not Path(f"/proc/{pid}/exe").exists()


def test_a_dead_daemon_is_broken_and_up_mends_it(folder: Path) -> None:
    cluster.up(folder, num_nodes=1)
    daemons = json.loads((folder / "cluster.json").read_text())["daemons"]
    os.kill(next(pid for name, pid, _ in daemons if name.endswith("node1")), 9)
    subprocess.run(["sleep", "0.3"], check=True)
    assert cluster.status(folder).state == "broken"
    assert cluster.up(folder, num_nodes=1).state == "up"


def test_a_folder_that_others_may_write_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    with pytest.raises(UserError, match="not a folder that only you may write"):
        cluster.up(folder)
    folder.chmod(0o755)


def test_nodes_reach_each_other_and_this_machine(dev_cluster: Path) -> None:
    first, second = cluster.status(dev_cluster).nodes
    server = "import socket as s; l = s.create_server(('', 8765)); l.accept()[0].sendall(s.gethostname().encode())"
    client = "import socket, sys; print(socket.create_connection((sys.argv[1], 8765), 5).makefile().read())"
    for place in (["srun", f"--nodelist={second}"], []):  # from the other node, and from this machine
        serving = subprocess.Popen(
            ["srun", f"--nodelist={first}", sys.executable, "-c", server], env=_environment(dev_cluster)
        )
        asking = [*place, "sh", "-c", f'until {sys.executable} -c "$0" {first}; do sleep 0.2; done', client]
        answer = subprocess.run(
            asking, env=_environment(dev_cluster), capture_output=True, text=True, timeout=60, check=True
        )
        assert answer.stdout.strip() == first
        assert serving.wait(timeout=30) == 0


def test_without_root_one_line_says_what_to_do(ordinary_user: "User") -> None:
    done = ordinary_user.trainwright("cluster", "dev", "up", variables={"TRAINWRIGHT_DEV_CLUSTER": "/tmp/never-made"})
    said = "trainwright: cluster dev: starting daemons needs root; run `sudo trainwright cluster dev up`\n"
    assert (done.returncode, done.stderr) == (2, said)
    assert not Path("/tmp/never-made").exists()


def test_any_user_may_ask_for_the_status(dev_cluster: Path, ordinary_user: "User") -> None:
    done = ordinary_user.trainwright("cluster", "dev", "status", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert (shown["state"], shown["slurm_conf"]) == ("up", str(dev_cluster / "slurm.conf"))
    assert len(shown["nodes"]) == 2


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "SLURM_CONF": str(folder / "slurm.conf")}


def _slurm(folder: Path, *command: str) -> str:
    done = subprocess.run(command, env=_environment(folder), capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def _srun(folder: Path, *arguments: str) -> str:
    return _slurm(folder, "srun", *arguments)


def _links() -> str:
    return subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
