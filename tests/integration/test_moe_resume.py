"""A mixture of experts killed at a random moment: bitwise equal in the same layout, the same curve in others."""

from pathlib import Path

import pytest

from .real_runs import (
    IN_MATRIX,
    MOE_LAYOUTS,
    QWEN3_MOE_UNSCALED,
    curve,
    killed_and_resumed,
    make_project,
    run_chain,
    train,
)

pytestmark = pytest.mark.ranks
STEPS = 16
LENGTH = [f"train.steps={STEPS}", "checkpoint.every_steps=3"]
CHAIN = ["ep2_zero", "tp2_sp_ep2", "pp2_ep2", "tp1", "etp2", "ep4", "ep2"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("moe-resume"), QWEN3_MOE_UNSCALED)


@IN_MATRIX
@pytest.mark.parametrize("layout", MOE_LAYOUTS)
def test_same_layout_is_bitwise_equal(project: Path, layout: str) -> None:
    whole = curve(train(project, f"whole-{layout}", [*LENGTH, *MOE_LAYOUTS[layout]]))
    assert killed_and_resumed(project, f"killed-{layout}", [*LENGTH, *MOE_LAYOUTS[layout]], STEPS) == whole


@IN_MATRIX
def test_other_layouts(project: Path) -> None:
    """Changes of layout in one run, a kill before each, against one rank left alone."""
    assert run_chain(project, CHAIN) <= 1e-5
