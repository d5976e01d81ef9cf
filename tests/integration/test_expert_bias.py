"""Experts kept in balance by a bias: it does keep them, it is saved, and each engine goes on with the other's."""

from pathlib import Path

import numpy as np
import pytest

from trainwright.config.rundir import RunDir
from trainwright.serving.engine_check import check_by_engine
from trainwright.serving.export import ExportOptions, export_checkpoint
from trainwright.storage.checkpoints.checkpoint import find_checkpoint
from trainwright.tracking.recorder import read_metrics

from .real_runs import (
    DEEPSPEED_LAYOUTS,
    GLM4_MOE,
    IN_MATRIX,
    MOE_LAYOUTS,
    ONE_RANK,
    curve,
    go_on,
    largest_difference,
    make_project,
    train,
)

pytestmark = pytest.mark.ranks
RATE = 0.02
LENGTH = ["train.steps=24", "train.optimizer.lr=1.0e-3", f"train.router.bias_update_rate={RATE}"]
NAME = "model.layers.{}.mlp.gate.e_score_correction_bias"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("bias"), GLM4_MOE)


@pytest.fixture(scope="module")
def balanced(project: Path) -> RunDir:
    return train(project, "balanced", [*LENGTH, *MOE_LAYOUTS["ep2"]])


def test_the_fullest_expert_gets_less(project: Path, balanced: RunDir) -> None:
    """Against the same run with a bias that stays 0."""
    still = train(project, "still", [*LENGTH, "train.router.bias_update_rate=0", *MOE_LAYOUTS["ep2"]])
    fullest = {
        run.name: np.mean([record["expert_load_max"] for record in read_metrics(run)][-6:]) for run in (balanced, still)
    }
    print(fullest)
    assert fullest["balanced"] - 1 < 0.8 * (fullest["still"] - 1)
    bias = find_checkpoint(str(still.path)).read("weight", NAME.format(2))
    assert np.array_equal(bias, np.zeros(4, np.float32))


@IN_MATRIX
def test_each_engine_goes_on_with_the_others_bias(project: Path, balanced: RunDir) -> None:
    run = train(project, "both", [*LENGTH, "train.steps=8", *DEEPSPEED_LAYOUTS["zero3"]])
    go_on(run, ["train.steps=16", *ONE_RANK, *MOE_LAYOUTS["pp2_ep2"]])
    go_on(run, ["train.steps=24", *ONE_RANK, *DEEPSPEED_LAYOUTS["zero1"]])
    difference = largest_difference(curve(balanced), curve(run))
    print(f"zero3 -> pp2_ep2 -> zero1: largest relative difference from ep2 {difference:.1e}")
    assert difference <= 1e-3  # a free run: a near tie may fall the other way
    ends = [find_checkpoint(str(each.path)) for each in (balanced, run)]
    for layer in (1, 2, 3):
        ours, theirs = (end.read("weight", NAME.format(layer)) for end in ends)
        assert np.abs(ours - theirs).max() < 2.1 * RATE  # and with it, at worst, one step's direction
        assert np.abs(ours).max() > 4 * RATE


def test_transformers_chooses_the_same_experts(balanced: RunDir, tmp_path: Path) -> None:
    checkpoint = find_checkpoint(str(balanced.path))
    export_checkpoint(checkpoint, tmp_path / "export", ExportOptions(dtype="float32"))
    assert check_by_engine(balanced.path, checkpoint.folder, tmp_path / "export") <= 1e-5
