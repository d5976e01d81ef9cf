"""Commands with `--host`, over a real sshd on loopback: a laptop's folder on one side, a login node's on the other."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trainwright.config.rundir import RunDir
from trainwright.launchers.frozen import entry
from trainwright.launchers.processes import wait_until
from trainwright.launchers.snapshot import read_code

from .conftest import CLI, Done
from .faulty_runs import ToyProject, ToyRun, toy_files
from .real_runs import WHOLE

if TYPE_CHECKING:
    from .conftest import User

pytestmark = [pytest.mark.slurm, pytest.mark.ranks]
_NAME = "login"


@dataclass(frozen=True)
class Laptop:
    """A folder with run file and model but no token store, and the way to a login node that has the store."""

    user: "User"
    project: ToyProject
    there: Path

    def trainwright(self, *words: str | Path, host: str = _NAME + ":cluster", python: str | Path = "") -> Done:
        """A command with --host."""
        far = ["--host", host, "--host-python", python or self.project.folder / "python"]
        return self.user.trainwright(*words, *far)

    def json(self, *words: str | Path) -> dict[str, Any]:
        done = self.trainwright(*words, "--json")
        assert done.returncode == 0, done.stderr
        record: dict[str, Any] = json.loads(done.stdout)
        return record


@contextmanager
def _sshd(user: "User", folder: Path, variables: dict[str, str]) -> Iterator[None]:
    """An sshd that lets the user in by a key, and `ssh login` leading there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = user.home / ".ssh"
    home.mkdir(mode=0o700)
    for key in (folder / "host_key", home / "id_test"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (home / "authorized_keys").write_text((home / "id_test.pub").read_text())
    words = [f"HostName 127.0.0.1\nPort {port}", f"IdentityFile {home}/id_test", "StrictHostKeyChecking accept-new"]
    (home / "config").write_text(f"Host {_NAME}\n" + "\n".join(words) + "\nLogLevel ERROR\n")
    (home / "config").chmod(0o600)
    user.own(home)
    subprocess.run(["usermod", "--password", "*", user.name], check=True)  # sshd lets nobody in whose account is locked
    passed = " ".join(f'"{name}={value}"' for name, value in variables.items())
    lines = [f"ListenAddress 127.0.0.1:{port}", f"HostKey {folder}/host_key", "UsePAM no", "StrictModes no"]
    (folder / "sshd_config").write_text("\n".join([*lines, f"PidFile {folder}/pid", f"SetEnv {passed}", ""]))
    Path("/run/sshd").mkdir(exist_ok=True)
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None
    with (folder / "log").open("w") as log:
        daemon = subprocess.Popen([program, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    try:
        assert wait_until(lambda: "listening" in (folder / "log").read_text(), 20), (folder / "log").read_text()
        yield
    finally:
        daemon.terminate()
        daemon.wait()


@pytest.fixture(scope="module")
def laptop(
    dev_cluster: Path, ordinary_user: "User", small_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Laptop]:
    if not shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("needs sshd: apt-get install openssh-server")
    project = ToyProject.make(ordinary_user, toy_files(tmp_path_factory.mktemp("toy"), small_store), dev_cluster)
    there = ordinary_user.home / "cluster"
    there.mkdir()
    (project.folder / "store.zarr").rename(there / "store.zarr")
    ordinary_user.own(there)
    variables = {"TOY_FAULTS": str(project.folder / "faults"), "TOY_STEP_S": "0.01"}
    variables |= {"TRAINWRIGHT_DEV_CLUSTER": str(dev_cluster), "PATH": os.environ["PATH"]}
    variables |= {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
    with _sshd(ordinary_user, tmp_path_factory.mktemp("sshd"), variables):
        yield Laptop(ordinary_user, project, there)


def test_the_same_result_as_on_the_login_node(laptop: Laptop) -> None:
    folder = laptop.project.folder
    (folder / "faults" / "hold").unlink(missing_ok=True)
    run_file, python = folder / "run.yaml", f"cluster.python={folder / 'python'}"
    far = laptop.json("submit", run_file, python, "train.steps=20", "name=far", "--wait")
    assert (far["state"], far["step"], len(far["nodes"])) == ("finished", 20, 2)
    assert Path(far["run"]).parent == laptop.there / "runs"
    assert not (folder / "runs").exists(), "nothing is made on the laptop"
    assert laptop.json("status", "far") == json.loads(laptop.user.trainwright("status", far["run"], "--json").stdout)
    assert "step 20" in laptop.trainwright("logs", "far").stdout
    frozen = json.loads(RunDir(Path(far["run"])).code_digest.read_text())["files"]
    code = {f"code/{name}": entry(data, executable) for name, (data, executable) in read_code().items()}
    assert code == {name: what for name, what in frozen.items() if name.startswith("code/")}, "the laptop's code"


def test_a_run_file_of_the_host_is_kept(laptop: Laptop) -> None:
    """The laptop's replaces it; what was there lies beside it."""
    (laptop.there / "other.yaml").write_text("mine")
    shutil.copy(laptop.project.folder / "run.yaml", laptop.project.folder / "other.yaml")
    laptop.json("plan", laptop.project.folder / "other.yaml")
    assert (laptop.there / "other.yaml.old").read_text() == "mine"
    assert (laptop.there / "other.yaml").read_text() == (laptop.project.folder / "run.yaml").read_text()


def test_mistakes(laptop: Laptop) -> None:
    run_file = laptop.project.folder / "run.yaml"
    for done, words in (
        (laptop.trainwright("submit", run_file, host="nowhere.invalid"), "--host: ssh cannot run commands on nowhere"),
        (laptop.trainwright("submit", run_file, host="-oProxyCommand=x"), "--host"),
        (laptop.trainwright("submit", run_file, python="/no/python"), "--host-python: login has no /no/python"),
        (laptop.trainwright("submit", run_file, "train.stepps=3"), "did you mean train.steps?"),
        (laptop.trainwright("status", "nothing"), "no run 'nothing'"),
        (laptop.trainwright("submit", run_file, host=f"{_NAME}:elsewhere"), f"{laptop.user.home}/elsewhere/store.zarr"),
    ):
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(not WHOLE, reason="part of `make test-matrix`")
def test_ctrl_c_leaves_the_run_and_no_process(laptop: Laptop) -> None:
    """As when the laptop is closed: the job goes on, and what followed it over there has ended."""
    folder = laptop.project.folder
    (folder / "faults" / "hold").touch()
    marker = f"name=left-{secrets.token_hex(3)}"
    words = ["submit", folder / "run.yaml", f"cluster.python={folder / 'python'}", marker, "--wait"]
    far = ["--host", f"{_NAME}:cluster", "--host-python", folder / "python"]
    following = subprocess.Popen(
        [str(word) for word in (*CLI, *words, *far)],
        cwd=laptop.user.home,
        env={**os.environ, "HOME": str(laptop.user.home)},
        user=laptop.user.name,
        group=laptop.user.name,
        extra_groups=[],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    path = laptop.there / "runs" / marker.removeprefix("name=")
    run = ToyRun(laptop.project, RunDir(path), "")
    assert wait_until(lambda: (path / "run.yaml").exists(), 60)
    run.reach(50)
    os.killpg(following.pid, signal.SIGINT)
    said = following.communicate(timeout=30)[1]
    assert following.returncode == 130, said
    far_end = ["pgrep", "--full", "--count", "--uid", laptop.user.name, "trainwright.cli.host_side"]
    assert wait_until(lambda: subprocess.run(far_end, capture_output=True, check=False).returncode == 1, 20)
    assert laptop.json("status", path.name)["state"] == "running"
    assert laptop.json("cancel", path.name)["state"] == "cancelled"
