"""What the tests on real parts share: a dev cluster, an ordinary user, a small token store and its run file."""

import os
import pwd
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from trainwright.launchers import dev_cluster as cluster_module

CLI = [sys.executable, "-m", "trainwright.cli.main"]
Done = subprocess.CompletedProcess[str]
_ROOT = Path(__file__).parents[2]
_RUN = """\
schema_version: 1
name: tiny
model: model/config.json
data: {train: [{store: store.zarr}], sequence_length: 32}
train: {steps: 4, global_batch_size: 4, precision: fp32}
tracking: {wandb: {mode: disabled}}
cluster: {ranks_per_node: 2}
"""


@pytest.fixture(scope="session")
def dev_cluster() -> Iterator[Path]:
    """Folder of a Slurm cluster of two nodes, of these tests alone; $TRAINWRIGHT_DEV_CLUSTER names it meanwhile.

    Only for tests marked `slurm`, which are skipped where Slurm or root is missing.
    """
    folder = Path("/tmp") / f"trainwright-test-cluster-{os.getpid()}"
    before = os.environ.get("TRAINWRIGHT_DEV_CLUSTER")
    try:
        cluster_module.up(folder, num_nodes=2)
        os.environ["TRAINWRIGHT_DEV_CLUSTER"] = str(folder)
        yield folder
    finally:
        if before is None:
            os.environ.pop("TRAINWRIGHT_DEV_CLUSTER", None)
        else:
            os.environ["TRAINWRIGHT_DEV_CLUSTER"] = before
        cluster_module.down(folder)


@dataclass(frozen=True)
class User:
    """An ordinary user with a home of its own."""

    name: str
    home: Path

    def run(
        self, command: Sequence[str | Path], variables: Mapping[str, str] | None = None, timeout_s: float = 240
    ) -> Done:
        """Run a command as this user, in its home, with few variables; its output is captured."""
        names = ("PATH", "TRAINWRIGHT_DEV_CLUSTER", "LANG", "PYTHONPATH")
        environment = {name: os.environ[name] for name in names if name in os.environ}
        environment |= {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name, **(variables or {})}
        user = pwd.getpwnam(self.name)
        return subprocess.run(
            list(command),
            cwd=self.home,
            env=environment,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def trainwright(self, *arguments: str | Path, variables: Mapping[str, str] | None = None) -> Done:
        """Run the command line as this user."""
        return self.run([*CLI, *arguments], variables)

    def own(self, path: Path) -> None:
        """Give a file or tree to this user."""
        for entry in (path, *path.rglob("*")):
            shutil.chown(entry, self.name, self.name)


@pytest.fixture(scope="session")
def ordinary_user() -> Iterator[User]:
    """A user made for the tests, who may run this interpreter and this code."""
    name = f"tw{secrets.token_hex(4)}"
    home = Path("/home") / name
    subprocess.run(["useradd", "--create-home", "--home-dir", home, "--shell", "/bin/bash", name], check=True)
    try:
        with _reachable([Path(sys.executable), Path(sys.executable).resolve(), _ROOT]):
            yield User(name, home)
    finally:
        subprocess.run(["pkill", "-KILL", "-u", name], check=False)
        subprocess.run(["userdel", "--force", "--remove", name], check=False, capture_output=True)


@contextmanager
def _reachable(paths: list[Path]) -> Iterator[None]:
    """Let other users pass through (not list) the parents of these paths, as where root's home holds the checkout."""
    changed: dict[Path, int] = {}
    for folder in sorted({parent for path in paths for parent in path.parents}):
        mode = folder.stat().st_mode & 0o7777
        if not mode & 0o001:
            changed[folder] = mode
            folder.chmod(mode | 0o001)
    try:
        yield
    finally:
        for folder, mode in changed.items():
            folder.chmod(mode)


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token store of this project's own code, vocabulary 512."""
    from trainwright.storage.building.build import BuildOptions, build_store

    store = tmp_path_factory.mktemp("small-store") / "store.zarr"
    build_store([_ROOT / "config"], store, BuildOptions(vocab_size=512), lambda *_: None)
    return store


@pytest.fixture
def trainable(run_file: Path, small_store: Path) -> Path:
    """A run file that trains: two ranks on this machine, four steps."""
    shutil.copytree(small_store, run_file.parent / "store.zarr")
    run_file.write_text(_RUN)
    return run_file


@pytest.fixture
def users_run_file(trainable: Path, ordinary_user: User) -> Iterator[Path]:
    """The same run file in a folder of the ordinary user."""
    folder = ordinary_user.home / f"test-{secrets.token_hex(4)}"
    shutil.copytree(trainable.parent, folder)
    ordinary_user.own(folder)
    yield folder / trainable.name
    shutil.rmtree(folder, ignore_errors=True)
