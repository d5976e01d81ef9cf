"""Every kind of mistake between an engine's parameters and Hugging Face's names: refused by export, tensor named."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainwright.config.errors import FoundBad
from trainwright.config.rundir import RunDir
from trainwright.serving import export, model_files, safetensors_file
from trainwright.serving.export import ExportOptions, export_checkpoint
from trainwright.serving.safetensors_file import ReadRows
from trainwright.storage.checkpoints.checkpoint import find_checkpoint
from trainwright.storage.checkpoints.checkpoint_writer import (
    OwnedRectangle,
    files_written,
    prepare_folder,
    write_rank_files,
)
from trainwright.storage.checkpoints.manifest import read_manifest, write_manifest

from .small_run import LLAMA, make_run, owned_by

MOE = {
    **LLAMA,
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_key_value_heads": 4,
    "moe_intermediate_size": 48,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}
RANKS = 2
LAYER = "model.layers.1."
EXPERT = LAYER + "mlp.experts.3.up_proj.weight"
EMBEDDING = "model.embed_tokens.weight"
Owned = Iterable[OwnedRectangle]


def missing(owned: Owned) -> Owned:
    """An expert that no rank saved."""
    return [item for item in owned if item.name != EXPERT]


def half(owned: Owned) -> Owned:
    """A tensor parallel share that its rank took for the other's: one half twice, the other never."""
    return [item if item.name != EXPERT else _moved(item, -item.rectangle.row) for item in owned]


def twice(owned: Owned) -> Owned:
    """A replicated tensor that every rank calls its own."""
    found = list(owned)
    return [*found, *(item for item in found if item.name == EXPERT and item.rectangle.row == 0)]


def short(owned: Owned) -> Owned:
    """The vocabulary's last rows taken for padding."""
    return [item if item.name != EMBEDDING or item.rectangle.row == 0 else _cut(item) for item in owned]


def garbage(owned: Owned) -> Owned:
    """Rows that were never filled."""
    return [item if item.name != EXPERT else replace(item, values=np.full_like(item.values, np.nan)) for item in owned]


IN_THE_CHECKPOINT: dict[str, tuple[Callable[[Owned], Owned], str, str]] = {
    "expert missing": (missing, EXPERT, "lacks"),
    "share taken for another": (half, EXPERT, "twice"),
    "owned twice": (twice, EXPERT, "twice"),
    "vocabulary cut": (short, EMBEDDING, "lacks"),
    "never filled": (garbage, EXPERT, "NaN"),
}
IN_THE_MANIFEST: dict[str, tuple[str, list[int] | None]] = {
    "transposed": (EXPERT, [64, 48]),
    "padded vocabulary": (EMBEDDING, [336, 64]),
    "more experts than the config": (LAYER + "mlp.experts.4.up_proj.weight", [48, 64]),
    "unknown to the checkpoint": (EXPERT, None),
}
IN_THE_NAMES: dict[str, tuple[dict[str, str], str]] = {
    "gate and up exchanged": ({".gate_proj": ".up_proj", ".up_proj": ".gate_proj"}, "gate_proj"),
    "q and k exchanged": ({".q_proj": ".k_proj", ".k_proj": ".q_proj"}, "k_proj"),
    "experts shifted": ({f"experts.{j}.": f"experts.{(j + 1) % 4}." for j in range(4)}, "experts.0"),
    "layers exchanged": ({"layers.0.": "layers.1.", "layers.1.": "layers.0."}, "layers.0."),
}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run(tmp_path / "runs", MOE, num_ranks=RANKS)


def refused(run: RunDir, folder: Path, dtype: safetensors_file.DType = "float32") -> str:
    """What export says; it must leave nothing."""
    with pytest.raises(FoundBad) as found:
        export_checkpoint(find_checkpoint(str(run.path)), folder, ExportOptions(dtype=dtype))
    assert not folder.exists()
    assert not list(folder.parent.glob(".*partial*"))
    return str(found.value)


def test_without_a_mistake_it_is_exported(run: RunDir, tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16", "float16"):
        assert export_checkpoint(find_checkpoint(str(run.path)), tmp_path / dtype, ExportOptions(dtype=dtype)).step == 5


@pytest.mark.parametrize("mistake", IN_THE_CHECKPOINT)
def test_saved_wrongly(run: RunDir, tmp_path: Path, mistake: str) -> None:
    change, name, words = IN_THE_CHECKPOINT[mistake]
    folder = run.checkpoint(5)
    manifest = read_manifest(folder)
    prepare_folder(folder)
    for rank in range(RANKS):
        write_rank_files(folder, rank, list(change(owned_by(run, rank, RANKS))))
    write_manifest(folder, replace(manifest, files=files_written(folder, RANKS)))
    message = refused(run, tmp_path / "out")
    assert f"{name} " in message
    assert words in message


@pytest.mark.parametrize("mistake", IN_THE_MANIFEST)
def test_other_tensors_than_the_models(run: RunDir, tmp_path: Path, mistake: str) -> None:
    name, shape = IN_THE_MANIFEST[mistake]
    manifest = read_manifest(run.checkpoint(5))
    tensors = {key: value for key, value in manifest.tensors.items() if key != name}
    write_manifest(run.checkpoint(5), replace(manifest, tensors=tensors | ({name: shape} if shape else {})))
    assert f"{name} is" in refused(run, tmp_path / "out")


@pytest.mark.parametrize("mistake", IN_THE_NAMES)
def test_written_under_another_name(run: RunDir, tmp_path: Path, mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes are equal, so that only the values show it."""
    exchanged, named = IN_THE_NAMES[mistake]
    original = export._reader

    def wrong(*args: object) -> ReadRows:
        read = original(*args)  # type: ignore[arg-type]
        return lambda name, row, count: read(_exchange(name, exchanged), row, count)

    monkeypatch.setattr(export, "_reader", wrong)
    message = refused(run, tmp_path / "out")
    assert named in message
    assert "other values" in message


IN_THE_CONFIG: dict[str, object] = {
    "rope_theta": 100.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "norm_topk_prob": True,
    "head_dim": 16,
    "num_experts_per_tok": 1,
}


@pytest.mark.parametrize("field", IN_THE_CONFIG)
def test_a_config_of_another_model(run: RunDir, tmp_path: Path, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes may be equal: only the numbers that come out are others."""
    original = model_files.write_model_files

    def wrong(place: RunDir, folder: Path, dtype: str) -> None:
        original(place, folder, dtype)
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), field: IN_THE_CONFIG[field]}))

    monkeypatch.setattr(export, "write_model_files", wrong)
    assert re.search(r"config\.json: says \w+ .*, and the run's model has", refused(run, tmp_path / "out"))


def test_a_header_that_points_beside_its_values(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = safetensors_file._header
    name = LAYER + "input_layernorm.weight"

    def shifted(tensors: list[safetensors_file.Tensor]) -> bytes:
        data = original(tensors)
        entries = json.loads(data[8:])
        first, stop = entries[name]["data_offsets"]
        entries[name]["data_offsets"] = [first - 4, stop - 4]
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (len(data) - 8 - len(text))
        return data[:8] + text

    monkeypatch.setattr(safetensors_file, "_header", shifted)
    assert name in refused(run, tmp_path / "out")


def test_values_cut_off_instead_of_rounded(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        safetensors_file, "to_bfloat16", lambda values: (values.view(np.uint32) >> np.uint32(16)).astype("<u2")
    )
    assert "lm_head.weight was written with other values" in refused(run, tmp_path / "out", "bfloat16")


def _exchange(name: str, names: dict[str, str]) -> str:
    for before, after in names.items():
        if before in name:
            return name.replace(before, after)
    return name


def _moved(item: OwnedRectangle, rows: int) -> OwnedRectangle:
    return replace(item, rectangle=replace(item.rectangle, row=item.rectangle.row + rows))


def _cut(item: OwnedRectangle) -> OwnedRectangle:
    num_rows = item.rectangle.num_rows - 8
    return replace(item, rectangle=replace(item.rectangle, num_rows=num_rows), values=item.values[:num_rows])
