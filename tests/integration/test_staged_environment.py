"""Ranks of a real Slurm job that run from a copy of their environment on the node's own disk."""

import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .faulty_runs import ToyProject, toy_files
from .real_runs import WHOLE

if TYPE_CHECKING:
    from .conftest import User

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.ranks,
    pytest.mark.skipif(not WHOLE, reason="packs an installation of Python: make test-matrix"),
]


@pytest.fixture
def scratch(ordinary_user: "User") -> Iterator[Path]:
    folder = Path(f"/tmp/{ordinary_user.name}-scratch")
    folder.mkdir(mode=0o700)
    ordinary_user.own(folder)
    yield folder
    shutil.rmtree(folder)


def test_the_ranks_run_from_there(
    dev_cluster: Path, ordinary_user: "User", small_store: Path, scratch: Path, tmp_path: Path
) -> None:
    """Two nodes, one of whose ranks is killed: the next attempt finds it unpacked."""
    project = ToyProject.make(ordinary_user, toy_files(tmp_path / "toy", small_store), dev_cluster)
    env = project.folder / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", env], check=True)
    (packages,) = env.glob("lib/python*/site-packages")
    (packages / "more.pth").write_text("\n".join([str(project.folder / "toy"), *site.getsitepackages()]))
    ordinary_user.own(env)
    staged = (f"cluster.stage_environment={scratch}", f"cluster.python={env / 'bin' / 'python'}")
    run = project.submit("train.steps=60", "cluster.ranks_per_node=1", *staged)
    run.fault(1, "at 50 exit 1")
    run.release()
    assert run.finish()["state"] == "finished", run.explain()
    assert run.causes() == ["crash", "finished"], run.explain()
    (home,) = scratch.glob("trainwright-*")
    logs = [run.run.rank_log(attempt, rank).read_text() for attempt in (1, 2) for rank in (0, 1)]
    assert sum(f"environment unpacked to {home}" in log for log in logs) == 1, "both nodes have this machine's /tmp"
    said = run.events("submit")[0].fields["environment"]
    assert home.name.endswith(said["sha256"][:16])
    shutil.rmtree(project.folder)
