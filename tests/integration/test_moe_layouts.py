"""Every layout of a mixture of experts computes what one rank computes: losses of the router included."""

from pathlib import Path

import numpy as np
import pytest

from trainwright.config.rundir import RunDir
from trainwright.tracking.recorder import read_metrics

from .real_runs import IN_MATRIX, MOE_LAYOUTS, QWEN2_MOE, curve, largest_difference, make_project, train

pytestmark = [pytest.mark.ranks, IN_MATRIX]  # in `make test`, tests/contracts has every layout, a step from one state
STEPS = 20
NEAR_TIE = 2e-5  # of logits around 1 that differ by rounding of 1e-7 to 1e-6 between layouts
ROUTER = ["train.router.z_loss_coef=1.0e-3", "tracking.expert_load_every=1"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared experts, a router whose shares do not sum to 1, an aux loss twenty times the usual."""
    return make_project(tmp_path_factory.mktemp("moe"), QWEN2_MOE)


@pytest.fixture(scope="module")
def one_rank(project: Path) -> RunDir:
    """The reference; it keeps every step's state."""
    return train(
        project, "one", [f"train.steps={STEPS + 1}", "checkpoint.every_steps=1", "checkpoint.keep=100", *ROUTER]
    )


@pytest.mark.parametrize("layout", MOE_LAYOUTS)
def test_each_step_from_the_references_state(project: Path, one_rank: RunDir, layout: str) -> None:
    expected, worst = curve(one_rank), 0.0
    for step in range(1, STEPS + 1):
        overrides = [f"checkpoint.resume_from={one_rank.checkpoint(step)}", f"train.steps={step + 1}", *ROUTER]
        run = train(project, f"{layout}-{step}", [*overrides, *MOE_LAYOUTS[layout]])
        worst = max(worst, largest_difference({step + 1: expected[step + 1]}, curve(run)))
    print(f"{layout}: largest relative difference of loss and gradient norm {worst:.1e}")
    assert worst <= 1e-5


@pytest.mark.parametrize("layout", MOE_LAYOUTS)
def test_free_run(project: Path, one_rank: RunDir, layout: str) -> None:
    """Rounding may turn a routing decision that was all but a tie; from there on the runs are two."""
    run = train(project, f"free-{layout}", [f"train.steps={STEPS}", *ROUTER, *MOE_LAYOUTS[layout]])
    pairs = list(zip(read_metrics(run), read_metrics(one_rank), strict=False))
    assert len(pairs) == STEPS
    turned = next((theirs for mine, theirs in pairs if mine["expert_load"] != theirs["expert_load"]), None)
    last = STEPS if turned is None else turned["step"] - 1
    expected, found = ({s: c[s] for s in range(1, last + 1)} for c in (curve(one_rank), curve(run)))
    difference = largest_difference(expected, found)
    print(f"{layout}: largest relative difference over {last} steps {difference:.1e}")
    assert difference <= 1e-3
    if turned is not None:
        print(
            f"{layout}: at step {turned['step']} a decision was turned; the nearest was {turned['routing_margin']:.1e}"
        )
        assert turned["routing_margin"] <= NEAR_TIE
        whole = {step: values for step, values in curve(one_rank).items() if step <= STEPS}
        assert largest_difference(whole, curve(run)) <= 0.1
    for mine, theirs in pairs[:last]:
        assert mine["aux_loss"] == pytest.approx(theirs["aux_loss"], rel=1e-3)
        assert mine["z_loss"] == pytest.approx(theirs["z_loss"], rel=1e-3)
        assert np.mean(mine["expert_load"]) == pytest.approx(1.0, abs=1e-4)  # written with four digits
    assert np.median([theirs["routing_margin"] for _, theirs in pairs]) > NEAR_TIE, "a tie in every step proves nothing"


def test_recompute_changes_nothing(project: Path, one_rank: RunDir) -> None:
    overrides = [f"checkpoint.resume_from={one_rank.checkpoint(7)}", "train.steps=8", "train.recompute=full", *ROUTER]
    run = train(project, "recompute", [*overrides, *MOE_LAYOUTS["tp2_sp_ep2"]])
    assert largest_difference({8: curve(one_rank)[8]}, curve(run)) <= 1e-5


def test_the_routers_losses_are_in_the_gradient(project: Path, one_rank: RunDir) -> None:
    """Otherwise agreeing layouts would say nothing of them."""
    with_both = curve(one_rank)[8]
    for name, left_out in (("aux", "train.router.aux_loss_coef=0"), ("z", "train.router.z_loss_coef=0")):
        overrides = [f"checkpoint.resume_from={one_rank.checkpoint(7)}", "train.steps=8", *ROUTER, left_out]
        loss, norm = curve(train(project, f"without-{name}", overrides))[8]
        assert loss == with_both[0]
        assert abs(norm - with_both[1]) > 1e-4 * norm
