"""Keys of W&B, by a variable and by netrc, reach the ranks of a real Slurm's jobs, and nothing else has them."""

import base64
import hashlib
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainwright.launchers.dev_cluster.state import read_state
from trainwright.launchers.processes import wait_until

from ..unit.tracking.wandb_server import WandbServer
from .faulty_runs import ToyProject, ToyRun, toy_files
from .secret_search import commands_seen, files_with

if TYPE_CHECKING:
    from .conftest import User

pytestmark = [pytest.mark.slurm, pytest.mark.ranks]
_SMALL = ("cluster.nodes=1", "cluster.ranks_per_node=1", "train.steps=60", "tracking.wandb.mode=online")
_PASSED = "cluster.environment=[TOY_FAULTS,TOY_STEP_S,WANDB_BASE_URL,WANDB_API_KEY]"
_ASKED = (
    ("scontrol", "show", "job", "-dd"),
    ("scontrol", "show", "step"),
    ("squeue", "--Format=all:500"),
    ("squeue", "--format=%all"),
)


def _basic(key: str) -> str:
    """How a key is sent."""
    return "Basic " + base64.b64encode(f"api:{key}".encode()).decode()


@dataclass
class Seen:
    """All that was said and kept of two runs."""

    runs: list[ToyRun]
    """The first has its key from a variable, the second from netrc."""
    keys: tuple[str, str]
    sent: set[str]
    """What W&B's server was sent as authorization."""
    said: list[str]
    """Command lines of all processes, answers of Slurm's commands and of ours."""
    kept_meanwhile: list[Path]
    """Files of the user and of Slurm that held a key while both ran."""


@pytest.fixture(scope="module")
def home(ordinary_user: "User") -> Iterator[Path]:
    """The user's home as a git work tree, from which runs are submitted, with a file that says too much."""
    home = ordinary_user.home
    for words in (
        ["init", "--quiet"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-qm", "a"],
    ):
        assert ordinary_user.run(["git", *words]).returncode == 0
    yield home
    shutil.rmtree(home / ".git")
    (home / ".netrc").unlink()
    (home / ".gitignore").unlink()
    (home / ".env").unlink()


@pytest.fixture(scope="module")
def seen(
    dev_cluster: Path, ordinary_user: "User", home: Path, small_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Seen]:
    """Both runs, from submission to end, with eyes open."""
    by_variable, by_netrc = secrets.token_hex(20), secrets.token_hex(20)
    names, _ = read_state(dev_cluster)
    assert names is not None
    address = names.bridge_address
    server = WandbServer(address)
    for name, text in ((".netrc", f"machine {address} login user password {by_netrc}\n"), (".env", by_netrc)):
        (home / name).write_text(text)
        (home / name).chmod(0o600)
        shutil.chown(home / name, ordinary_user.name)
    files = toy_files(tmp_path_factory.mktemp("toy"), small_store)
    project = ToyProject.make(ordinary_user, files, dev_cluster)
    # What other tests have left in this home could fill the patch.
    (home / ".gitignore").write_text(f"/*\n!/.netrc\n!/.env\n!/{project.folder.name}\n")
    url = {"WANDB_BASE_URL": server.url}
    with commands_seen() as commands:
        second = project.submit(*_SMALL, _PASSED, variables=url)
        (project.folder / "notes.txt").write_text(f"before submit: export WANDB_API_KEY={by_variable}\n")
        runs = [project.submit(*_SMALL, _PASSED, variables={**url, "WANDB_API_KEY": by_variable}), second]
        for run in runs:
            run.reach(50, timeout_s=240)
        wait_until(lambda: bool(server.keys), 20)  # W&B's own process has begun, or would on a quieter machine
        said = [runs[0].slurm(*words) for words in _ASKED]
        said += [run.slurm("scontrol", "write", "batch_script", run.job_id, "-") for run in runs]
        places = [home, dev_cluster]
        kept = files_with(places, [by_variable, by_netrc])
        runs[0].release()
        ends = [run.finish() for run in runs]
        for run in runs:
            for words in (["status", "--json"], ["logs"], ["plan", str(run.run.run_yaml), "--json"]):
                done = ordinary_user.trainwright(*words, *([] if words[0] == "plan" else [run.run.path]), variables=url)
                assert done.returncode == 0, done.stderr
                said += [done.stdout, done.stderr]
    assert [end["state"] for end in ends] == ["finished"] * 2, runs[0].explain()
    yield Seen(runs, (by_variable, by_netrc), server.keys, [*said, *commands], kept)
    server.close()
    shutil.rmtree(project.folder, ignore_errors=True)


def test_the_key_reaches_the_ranks(seen: Seen) -> None:
    for run, key in zip(seen.runs, (seen.keys[0], ""), strict=True):
        assert hashlib.sha256(key.encode()).hexdigest() in run.run.rank_log(1, 0).read_text(), run.explain()
    assert seen.sent <= {"", *map(_basic, seen.keys)}, "W&B's server saw no other keys"


def test_meanwhile_one_private_file_has_the_one_from_the_shell(seen: Seen) -> None:
    keys, project = seen.runs[0].run.jobs / "keys.json", seen.runs[0].project
    assert seen.kept_meanwhile == sorted(
        [project.user.home / ".env", project.user.home / ".netrc", project.folder / "notes.txt", keys]
    )


def test_nothing_has_a_key_after_the_runs(seen: Seen, dev_cluster: Path) -> None:
    project = seen.runs[0].project
    needles = [form for key in seen.keys for form in (key, _basic(key).partition(" ")[2])]
    found = files_with([project.user.home, dev_cluster], needles)
    assert found == sorted([project.user.home / ".env", project.user.home / ".netrc", project.folder / "notes.txt"])
    assert not [text for text in seen.said if any(needle in text for needle in needles)]
    assert any("launchers.worker" in text for text in seen.said), "somebody has looked"


def test_the_patch_has_the_file_that_said_too_much_without_the_key(seen: Seen) -> None:
    patch = (seen.runs[0].run.snapshot / "uncommitted.patch").read_text()
    assert "+before submit: export WANDB_API_KEY=***\n" in patch
    assert ".netrc" not in patch
