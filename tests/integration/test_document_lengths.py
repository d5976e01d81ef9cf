"""Attention by cumulative lengths trains as attention by a mask does, and so does counting positions anew."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trainwright.config.loading import dump_run, load_run
from trainwright.config.rundir import RunDir, create_run_dir
from trainwright.launchers.snapshot import take_snapshot
from trainwright.storage.checkpoints.checkpoint import open_checkpoint
from trainwright.storage.loading.packing import pack_store
from trainwright.storage.loading.training_data import TrainingData

from .real_runs import (
    IN_MATRIX,
    LAYOUTS,
    LENGTH,
    MOE_LAYOUTS,
    QWEN2_MOE,
    WHOLE,
    Model,
    curve,
    largest_difference,
    make_project,
    train,
)

pytestmark = pytest.mark.ranks
STRETCHED = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MODELS = {"dense": Model("llama", False, (("rope_scaling", STRETCHED),)), "moe": QWEN2_MOE}
PACKED = ["data.packing=best_fit", "train.micro_batch_size=4"]  # more tokens than share one call
ANEW = ["data.reset_positions=true"]
CASES: list[tuple[str, str, list[str]]] = [
    ("moe", "tp2_sp_ep2", ANEW),
    *(("dense", layout, more) for layout in ("tp1", "tp2_sp", "tp2_pp2", "dp2") for more in ([], ANEW)),
    *(("moe", layout, more) for layout in ("tp1", "pp2_ep2", "ep2") for more in ([], ANEW)),
    ("dense", "tp2_sp", ["train.recompute=full", *ANEW]),
    ("dense", "tp2_sp", ["train.recompute=attention"]),
]


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDir]:
    return {name: train_masked(tmp_path_factory.mktemp(name), model) for name, model in MODELS.items()}


def train_masked(folder: Path, model: Model) -> RunDir:
    """Three steps of one rank with a mask of every pair of tokens, on whole documents that share samples."""
    project = make_project(folder, model)
    pack_store(folder / "store.zarr", LENGTH)
    run = load_run(project, ["name=masked", *PACKED])
    place = create_run_dir(Path(run.runs), run.name)
    place.attempt_yaml(1).write_text(dump_run(run))
    with TrainingData.open(run.data).tokenizer_at_hand() as tokenizer:
        take_snapshot(place, Path(run.model), tokenizer)
    script = Path(__file__).with_name("masked_rank.py")
    subprocess.run([sys.executable, "-W", "ignore", str(script), str(place.path)], check=True, timeout=300)
    return place


@pytest.mark.parametrize(("model", "layout", "more"), CASES if WHOLE else CASES[:1], ids=str)
def test_as_with_a_mask(masked: dict[str, RunDir], model: str, layout: str, more: list[str]) -> None:
    compare(masked[model], layout, more)


@IN_MATRIX
def test_positions_anew_change_no_more_than_rounding(masked: dict[str, RunDir]) -> None:
    going_on, anew = (compare(masked["dense"], "pp2", more) for more in ([], ANEW))
    assert curve(going_on) != curve(anew), "other angles round otherwise, so nothing was reset"


def compare(reference: RunDir, layout: str, more: list[str]) -> RunDir:
    """Train as the reference did, and compare losses and gradients of all three steps."""
    project = reference.path.parent.parent / "run.yaml"
    name = "-".join([layout, *(each.rpartition("=")[2] for each in more)])
    run = train(project, name, [*PACKED, *more, *(LAYOUTS | MOE_LAYOUTS)[layout]])
    difference = largest_difference(curve(reference), curve(run))
    moments = largest_of_moments(reference, run)
    print(f"{name}: {difference:.1e} of loss and gradient norm, {moments:.1e} of the moments")
    assert difference <= 1e-5
    assert moments <= 1e-3
    return run


def largest_of_moments(a: RunDir, b: RunDir) -> float:
    """Largest difference of the mean gradients of three steps, relative to each tensor's largest."""
    mine, theirs = open_checkpoint(a.checkpoint(3)), open_checkpoint(b.checkpoint(3))
    worst = 0.0
    for name in mine.shapes():
        x, y = mine.read("exp_avg", name), theirs.read("exp_avg", name)
        assert np.abs(x).max() > 0, name
        worst = max(worst, float(np.abs(x - y).max() / np.abs(x).max()))
    return worst
