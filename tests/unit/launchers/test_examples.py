"""Every run file in examples/ is one that `plan` accepts, and is as large as its name says."""

import re
from pathlib import Path

import pytest

from trainwright.config.loading import load_run
from trainwright.launchers.plan import plan_run

EXAMPLES = Path(__file__).parents[3] / "examples"
PROFILES = ("h100.yaml",)
RUN_FILES = sorted(path for path in EXAMPLES.glob("*.yaml") if path.name not in PROFILES)


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.stem)
def test_plan_accepts_it(path: Path) -> None:
    plan = plan_run(load_run(path))
    named = re.search(r"-(\d+)-gpus$", path.stem)
    if named:
        assert len(plan.ranks) == int(named.group(1))
        assert plan.script is not None
        assert "#SBATCH --gpus-per-node=8" in plan.script


def test_there_are_some_of_every_size() -> None:
    names = {path.stem for path in RUN_FILES}
    assert {"quickstart", "quickstart-moe", "dev-cluster"} <= names
    assert any(name.endswith("-8-gpus") for name in names)
    assert any(name.endswith("-512-gpus") for name in names)
