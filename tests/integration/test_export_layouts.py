"""One state through every layout exports the same bytes, and transformers computes on them what the engine does."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trainwright.config.rundir import RunDir
from trainwright.serving.export import ExportOptions, export_checkpoint
from trainwright.storage.checkpoint import find_checkpoint

from .real_runs import LAYOUTS, Model, make_project, train

pytestmark = pytest.mark.ranks
MODELS = [
    Model("llama", False),
    Model("llama", True),
    Model("qwen3", False),
    Model("qwen3", True),
    Model("qwen2", True),
]


def exported(run: RunDir, folder: Path) -> Path:
    export_checkpoint(find_checkpoint(str(run.path)), folder, ExportOptions(dtype="float32"), lambda *_: None)
    return folder


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def logits_difference(run: RunDir, export: Path, scratch: Path) -> float:
    """max_rel of logits_check, engine and transformers each in a process of its own."""
    logits = scratch / "logits.npz"
    checkpoint = find_checkpoint(str(run.path)).folder
    python = [sys.executable, "-W", "ignore", "-m"]
    probe = [*python, "trainwright.parallelism.probe", str(run.path), str(checkpoint), str(logits), "--length", "32"]
    subprocess.run(probe, check=True)
    check = [*python, "trainwright.serving.logits_check", str(export), str(logits), "--tolerance", "1e9"]
    answer = subprocess.run(check, check=True, capture_output=True, text=True).stdout
    with np.load(logits) as file:
        assert np.abs(file["logits"]).max() > 0.1, "logits near 0 would prove nothing"
    return float(json.loads(answer.splitlines()[-1])["max_rel"])


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.family}-{'tied' if m.tied else 'untied'}")
def test_transformers_logits_equal_the_engines(tmp_path: Path, model: Model) -> None:
    run = train(make_project(tmp_path, model), "short")
    export = exported(run, tmp_path / "export")
    assert logits_difference(run, export, tmp_path) <= 1e-5
    if model.family == "qwen2":  # the check itself must see a wrong export
        config = json.loads((export / "config.json").read_text())
        config["rope_theta"] = 100.0
        config.pop("rope_parameters", None)
        (export / "config.json").write_text(json.dumps(config))
        assert logits_difference(run, export, tmp_path) > 1e-3


@pytest.mark.parametrize("model", [Model("llama", False), Model("qwen3", True)], ids=lambda m: m.family)
def test_every_layout_exports_the_same_bytes(tmp_path: Path, model: Model) -> None:
    project = make_project(tmp_path, model)
    first = train(project, "first")
    expected = digest(exported(first, tmp_path / "export-first"))
    for name, overrides in LAYOUTS.items():
        run = train(project, name, [f"checkpoint.resume_from={first.path}", *overrides])
        assert digest(exported(run, tmp_path / f"export-{name}")) == expected, name
