"""One state through every layout exports the same bytes, and transformers computes on them what the engine does."""

import hashlib
import json
from pathlib import Path

import pytest

from trainwright.config.errors import FoundBad
from trainwright.config.rundir import RunDir
from trainwright.serving.engine_check import check_by_engine
from trainwright.serving.export import ExportOptions, export_checkpoint
from trainwright.storage.checkpoints.checkpoint import find_checkpoint

from .real_runs import (
    GLM4_MOE,
    GLM4_MOE_HEAD_NORMS,
    IN_MATRIX,
    LAYOUTS,
    MIXTRAL,
    MOE_LAYOUTS,
    QWEN2_MOE,
    QWEN3_MOE,
    QWEN3_MOE_UNSCALED,
    WHOLE,
    Model,
    make_project,
    train,
)

pytestmark = pytest.mark.ranks
STRETCH = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 = Model("llama", True, (("rope_scaling", {**STRETCH, "original_max_position_embeddings": 16}),))
REPRESENTATIVE = [QWEN2_MOE]
MORE = [
    Model("qwen3", True),
    LLAMA3,
    Model("llama", False),
    MIXTRAL,
    Model("qwen2", True),
    Model("llama", True),
    Model("qwen3", False),
    QWEN3_MOE,
    QWEN3_MOE_UNSCALED,
    GLM4_MOE,
    GLM4_MOE_HEAD_NORMS,
]
MODELS = [*REPRESENTATIVE, *MORE] if WHOLE else REPRESENTATIVE
MOE = {"tp1": [], **MOE_LAYOUTS}
IN_ALL_LAYOUTS = [
    (QWEN2_MOE, MOE),
    (Model("qwen3", True), LAYOUTS),
    (Model("llama", False), LAYOUTS),
    (MIXTRAL, MOE),
    (GLM4_MOE, MOE),
]


def exported(run: RunDir, folder: Path) -> Path:
    export_checkpoint(find_checkpoint(str(run.path)), folder, ExportOptions(dtype="float32"), lambda *_: None)
    return folder


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_transformers_logits_equal_the_engines(tmp_path: Path, model: Model) -> None:
    run = train(make_project(tmp_path, model), "short")
    export = exported(run, tmp_path / "export")
    checkpoint = find_checkpoint(str(run.path)).folder
    assert check_by_engine(run.path, checkpoint, export) <= 1e-5
    if not WHOLE:
        return
    # The comparison itself must see a wrong export.
    config = json.loads((export / "config.json").read_text())
    config["rope_theta"] = 100.0
    config.pop("rope_parameters", None)
    (export / "config.json").write_text(json.dumps(config))
    with pytest.raises(FoundBad, match=r"transformers' logits differ from the engine's by"):
        check_by_engine(run.path, checkpoint, export)


@IN_MATRIX
@pytest.mark.parametrize(("model", "layouts"), IN_ALL_LAYOUTS, ids=[model.family for model, _ in IN_ALL_LAYOUTS])
def test_every_layout_exports_the_same_bytes(tmp_path: Path, model: Model, layouts: dict[str, list[str]]) -> None:
    project = make_project(tmp_path, model)
    first = train(project, "first")
    expected = digest(exported(first, tmp_path / "export-first"))
    for name, overrides in layouts.items():
        run = train(project, name, [f"checkpoint.resume_from={first.path}", *overrides])
        assert digest(exported(run, tmp_path / f"export-{name}")) == expected, name
