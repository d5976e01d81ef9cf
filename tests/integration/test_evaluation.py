"""Held-out loss while a run trains: what transformers says of the same samples, in every layout; the best is kept."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from trainwright.cli.main import main
from trainwright.config.loading import load_run
from trainwright.config.model_reader import read_model
from trainwright.config.rundir import RunDir
from trainwright.serving.export import ExportOptions, export_checkpoint
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.checkpoints.checkpoint import (
    HELD_OUT,
    best_step,
    committed_steps,
    find_checkpoint,
    held_out_losses,
    open_checkpoint,
)
from trainwright.storage.loading.held_out import held_out_data
from trainwright.storage.loading.training_data import TrainingData
from trainwright.tracking.recorder import read_metrics

from .real_runs import DEEPSPEED_LAYOUTS, LAYOUTS, MOE_LAYOUTS, QWEN2_MOE, WHOLE, Model, curve, make_project, train

pytestmark = pytest.mark.ranks
BATCH, LENGTH, BATCHES = 8, 32, 2
_STORES = "evaluation.stores=[{store: held.zarr}, {store: other.zarr, name: noise}]"
EVALUATION = [_STORES, "evaluation.every_steps=2", f"evaluation.batches={BATCHES}", "data.document_mask=false"]
CASES = {
    "tp2_pp2": (Model("llama", tied=True), LAYOUTS["tp2_pp2"]),
    "zero3": (Model("llama", tied=True), DEEPSPEED_LAYOUTS["zero3"]),
    "pp2_vpp2": (Model("llama", tied=True), LAYOUTS["pp2_vpp2"]),
    "cp2": (Model("llama", tied=True), LAYOUTS["cp2"]),
    "zero2_cp2": (Model("llama", tied=True), DEEPSPEED_LAYOUTS["zero2_cp2"]),
    "ep2_zero": (QWEN2_MOE, MOE_LAYOUTS["ep2_zero"]),
    "moe-zero1": (QWEN2_MOE, DEEPSPEED_LAYOUTS["zero1"]),
}


def make(folder: Path, model: Model) -> Path:
    """A project with two stores to hold out: text like the trained one, and noise."""
    run_file = make_project(folder, model)
    draw = random.Random(9)
    (folder / "noise.txt").write_text("".join(chr(draw.randrange(33, 127)) for _ in range(20_000)))
    options = BuildOptions(tokenizer=folder / "store.zarr" / "tokenizer")
    for name, source in (("held", "text"), ("other", "noise.txt")):
        build_store([folder / source], folder / f"{name}.zarr", options, lambda *_: None)
    return run_file


def by_transformers(run_file: Path, run: RunDir, folder: Path) -> dict[str, float]:
    """Mean loss of the exported last checkpoint over the same samples."""
    from transformers import AutoModelForCausalLM

    export_checkpoint(find_checkpoint(str(run.path)), folder, ExportOptions(dtype="float32"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    config, found = load_run(run_file, EVALUATION), {}
    fingerprint = TrainingData.open(config.data).tokenizer_fingerprint
    for name, data in held_out_data(config, read_model(run_file.parent), fingerprint).items():
        tokens = torch.from_numpy(data.batch(0, BATCH * BATCHES).tokens)
        with torch.inference_mode():
            logits = model(tokens[:, :-1]).logits
        found[name] = float(cross_entropy(logits.flatten(0, 1).double(), tokens[:, 1:].flatten()))
    return found


@pytest.mark.parametrize("name", [*CASES] if WHOLE else [*CASES][1:2])
def test_it_is_transformers_loss_and_changes_nothing(tmp_path: Path, name: str) -> None:
    model, layout = CASES[name]
    run_file = make(tmp_path, model)
    length = ["train.steps=5", "data.document_mask=false", *layout]
    run = train(run_file, "with", [*length, *EVALUATION])
    assert curve(run) == curve(train(run_file, "without", length))
    measured = {line["step"]: line["held_out"] for line in read_metrics(run) if "held_out" in line}
    assert list(measured) == [2, 4, 5]
    assert open_checkpoint(run.checkpoint(5)).manifest.scalars[HELD_OUT] == measured[5]
    expected = by_transformers(run_file, run, tmp_path / "export")
    assert measured[5].keys() == expected.keys() == {"held", "noise"}
    worst = max(abs(measured[5][store] - loss) / loss for store, loss in expected.items())
    print(f"{name}: largest relative difference {worst:.1e}")
    assert worst <= 1e-5
    assert measured[5]["noise"] > measured[5]["held"]


def test_the_best_checkpoint_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A learning rate that spoils the model after some steps: the best one stays, and has a name."""
    run_file = make(tmp_path, Model("llama", tied=True))
    schedule = ["train.schedule={name: wsd, warmup_steps: 12, decay_steps: 1}", "train.optimizer.lr=0.3"]
    length = ["train.steps=14", "checkpoint.every_steps=2", "checkpoint.keep=1", "guards.spike=off"]
    run = train(run_file, "spoilt", [*length, *schedule, _STORES, "evaluation.every_steps=2"])
    measured = {line["step"]: np.mean([*line["held_out"].values()]) for line in read_metrics(run) if "held_out" in line}
    best = min(measured, key=lambda step: measured[step])
    assert best < 14, measured
    assert committed_steps(run) == [best, 14]
    assert best_step(held_out_losses(run)) == best
    assert find_checkpoint(f"{run.path}@best").manifest.step == best
    assert main(["status", str(run.path)]) == 0
    assert f"best     step {best}, held-out loss " in capsys.readouterr().out
    assert main(["export", f"{run.path}@best", str(tmp_path / "best"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == best
