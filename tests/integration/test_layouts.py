"""Every layout computes what one rank computes, from one checkpoint, with uneven document masks."""

from pathlib import Path

import pytest

from trainwright.config.rundir import RunDir

from .real_runs import IN_MATRIX, LAYOUTS, Model, curve, largest_difference, make_project, train

pytestmark = [pytest.mark.ranks, IN_MATRIX]  # in `make test` tests/contracts has layouts, a step from one state
STEPS = 20


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("layouts"), Model("llama", tied=False))


@pytest.fixture(scope="module")
def checkpoint(project: Path) -> RunDir:
    """Three steps on one rank: weights, moments and a data position to go on from."""
    return train(project, "start")


@pytest.fixture(scope="module")
def one_rank(project: Path, checkpoint: RunDir) -> RunDir:
    return train(project, "one", [f"checkpoint.resume_from={checkpoint.path}", f"train.steps={3 + STEPS}"])


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "tp1"])
def test_layout_agrees_with_one_rank(project: Path, checkpoint: RunDir, one_rank: RunDir, layout: str) -> None:
    overrides = [f"checkpoint.resume_from={checkpoint.path}", f"train.steps={3 + STEPS}", *LAYOUTS[layout]]
    run = train(project, layout, overrides)
    expected = curve(one_rank)
    assert len(expected) == STEPS
    difference = largest_difference(expected, curve(run))
    print(f"{layout}: largest relative difference of loss and gradient norm {difference:.1e}")
    assert difference <= 1e-5


@pytest.mark.parametrize("recompute", ["full", "attention"])
def test_recompute_changes_nothing(project: Path, checkpoint: RunDir, one_rank: RunDir, recompute: str) -> None:
    overrides = [f"checkpoint.resume_from={checkpoint.path}", "train.steps=8", f"train.recompute={recompute}"]
    run = train(project, f"recompute-{recompute}", [*overrides, *LAYOUTS["tp2_sp"]])
    expected = {step: values for step, values in curve(one_rank).items() if step <= 8}
    assert largest_difference(expected, curve(run)) <= 1e-5


def test_bf16_follows_fp32(project: Path, checkpoint: RunDir, one_rank: RunDir) -> None:
    """Master weights and moments in float32: rounding of activations alone keeps the loss within a hundredth."""
    overrides = [f"checkpoint.resume_from={checkpoint.path}", "train.steps=8", "train.precision=bf16"]
    run = train(project, "bf16", [*overrides, *LAYOUTS["dp2"]])
    for step, (loss, _) in curve(run).items():
        expected = curve(one_rank)[step][0]
        assert 0 < abs(loss - expected) < 0.01 * expected


def test_masks_are_uneven(one_rank: RunDir) -> None:
    """Otherwise a mean of means would pass for the token mean."""
    from trainwright.config.loading import load_frozen
    from trainwright.parallelism.batches import BatchReader
    from trainwright.storage.loading.training_data import TrainingData

    run = load_frozen(one_rank.run_yaml)
    reader = BatchReader(run, TrainingData.open(run.data), 0, 1)
    for position in range(24, 24 + 8 * STEPS, 8):
        counts = reader.read(position).counted.reshape(4, -1).sum(1)  # by micro batch
        assert len(set(counts.tolist())) > 1, position
