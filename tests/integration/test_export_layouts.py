"""One state through every layout exports the same bytes, and transformers computes on them what the engine does."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trainwright.config.rundir import RunDir
from trainwright.serving.export import ExportOptions, export_checkpoint
from trainwright.serving.logits_check import compare_logits
from trainwright.storage.checkpoint import find_checkpoint

from .real_runs import LAYOUTS, WHOLE, Model, make_project, train

pytestmark = pytest.mark.ranks
REPRESENTATIVE = [Model("llama", False), Model("qwen3", True), Model("qwen2", True)]
MODELS = [*REPRESENTATIVE, Model("llama", True), Model("qwen3", False)] if WHOLE else REPRESENTATIVE
MODELS_IN_ALL_LAYOUTS = [Model("qwen3", True), Model("llama", False)] if WHOLE else [Model("qwen3", True)]


def exported(run: RunDir, folder: Path) -> Path:
    export_checkpoint(find_checkpoint(str(run.path)), folder, ExportOptions(dtype="float32"), lambda *_: None)
    return folder


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def engines_logits(run: RunDir, out: Path) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Tokens and the engine's logits on the run's checkpoint, computed in a process of its own."""
    checkpoint = find_checkpoint(str(run.path)).folder
    probe = ["trainwright.parallelism.probe", str(run.path), str(checkpoint), str(out), "--length", "32"]
    subprocess.run([sys.executable, "-W", "ignore", "-m", *probe], check=True)
    with np.load(out) as file:
        assert np.abs(file["logits"]).max() > 0.1, "logits near 0 would prove nothing"
        return file["tokens"], file["logits"]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.family}-{'tied' if m.tied else 'untied'}")
def test_transformers_logits_equal_the_engines(tmp_path: Path, model: Model) -> None:
    run = train(make_project(tmp_path, model), "short")
    export = exported(run, tmp_path / "export")
    tokens, logits = engines_logits(run, tmp_path / "logits.npz")
    assert compare_logits(export, tokens, logits)["max_rel"] <= 1e-5
    # The comparison itself must see a wrong export.
    config = json.loads((export / "config.json").read_text())
    config["rope_theta"] = 100.0
    config.pop("rope_parameters", None)
    (export / "config.json").write_text(json.dumps(config))
    assert compare_logits(export, tokens, logits)["max_rel"] > 1e-3


@pytest.mark.parametrize("model", MODELS_IN_ALL_LAYOUTS, ids=lambda m: m.family)
def test_every_layout_exports_the_same_bytes(tmp_path: Path, model: Model) -> None:
    project = make_project(tmp_path, model)
    first = train(project, "first")
    expected = digest(exported(first, tmp_path / "export-first"))
    for name, overrides in LAYOUTS.items():
        run = train(project, name, [f"checkpoint.resume_from={first.path}", *overrides])
        assert digest(exported(run, tmp_path / f"export-{name}")) == expected, name
