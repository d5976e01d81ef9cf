"""Ranks in a container on a real Slurm: a stand-in takes apptainer's words, sees every mount, and runs the command."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .faulty_runs import ToyProject, toy_files

if TYPE_CHECKING:
    from .conftest import User

pytestmark = [pytest.mark.slurm, pytest.mark.ranks]
_STAND_IN = """\
#!/bin/sh
echo "$@" >>"$(dirname "$0")/said"
[ "$1" = exec ] || exit 64
shift
while :; do
    case "$1" in
    --pwd) cd "$2" && shift 2 || exit 65 ;;
    --env) export "$2" && shift 2 ;;
    --bind) [ -e "${2%%:*}" ] && shift 2 || exit 66 ;;
    -*) exit 67 ;;
    *) break ;;
    esac
done
[ -f "$1" ] && shift || exit 68
exec "$@"
"""


def test_ranks_run_inside_and_the_supervisor_outside(
    dev_cluster: Path, ordinary_user: "User", small_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project = ToyProject.make(ordinary_user, toy_files(tmp_path_factory.mktemp("toy"), small_store), dev_cluster)
    programs = project.folder / "bin"
    programs.mkdir()
    (programs / "apptainer").write_text(_STAND_IN)
    (programs / "apptainer").chmod(0o755)
    image = project.folder / "image.sif"
    image.touch()
    ordinary_user.own(programs)
    box = [f"cluster.container.image={image}", f"cluster.container.python={project.folder / 'python'}"]
    variables = {"TOY_FAULTS": str(project.folder / "faults"), "PATH": f"{programs}:{os.environ['PATH']}"}
    (project.folder / "faults" / "hold").unlink()
    words: list[str | Path] = [
        "submit",
        project.folder / "run.yaml",
        *box,
        "train.steps=10",
        "cluster.nodes=1",
        "--wait",
        "--json",
    ]
    done = ordinary_user.trainwright(*words, variables=variables)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 10
    said = (programs / "said").read_text().splitlines()
    assert len(said) == 2, "once per rank"
    assert all(f"--bind {project.folder / 'runs'} --bind {project.folder / 'store.zarr'}" in line for line in said)
    image.unlink()
    done = ordinary_user.trainwright(*words, variables=variables)
    assert done.returncode == 2
    assert f"cluster.container.image: {image} does not exist" in done.stderr
    assert done.stderr.count("\n") == 1
