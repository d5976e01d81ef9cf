"""What MODEL means to `serve`: an exported folder, or a run's checkpoint that is exported first if need be."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..config.errors import UserError
from ..config.rundir import RunDir, find_run, split_step
from ..storage.checkpoints.checkpoint import Checkpoint, find_checkpoint
from .export import RECORD, ExportOptions, checkpoint_id, export_checkpoint, run_of


@dataclass(frozen=True)
class ServedModel:
    """An exported folder, the run that it is served for (None if a folder was given), a name, and its config.json."""

    folder: Path
    run: RunDir | None
    name: str
    config: dict[str, object]


def find_model(text: str, on_bytes: Callable[[int, int], None] = lambda _done, _total: None) -> ServedModel:
    """The model that `text` means; a RUN[@STEP] without an up-to-date export is exported into the run directory."""
    folder = Path(text)
    if (folder / "config.json").is_file():
        if not any(folder.glob("*.safetensors")):
            raise UserError(f"MODEL: {text}", "has a config.json but no safetensors files", "give an exported model")
        return ServedModel(folder.absolute(), None, folder.absolute().name, model_config(folder))
    if folder.is_dir() and not (folder / "run.yaml").is_file() and not (folder / "manifest.json").is_file():
        raise UserError(
            f"MODEL: {text}", "is no exported model (it has no config.json)", "export one, or give RUN[@STEP]"
        )
    kept = _export_of_removed_checkpoint(text)
    if kept is not None:
        return kept
    checkpoint = find_checkpoint(text)
    run = run_of(checkpoint)
    folder = _exported(checkpoint, run, on_bytes)
    return ServedModel(folder, run, run.name, model_config(folder))


def model_config(place: Path) -> dict[str, object]:
    """A model's config.json, given by itself or by its folder."""
    path = place / "config.json" if place.is_dir() else place
    record: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return record


def expected_export(run: RunDir, step: int) -> Path:
    """Where a run's checkpoint of a step is exported to if it is to be served."""
    return run.export / f"step-{step:08d}"


def _exported(checkpoint: Checkpoint, run: RunDir, on_bytes: Callable[[int, int], None]) -> Path:
    """The run's export of this checkpoint; one made from other bytes under the same step is replaced."""
    folder = expected_export(run, checkpoint.manifest.step)
    if (folder / RECORD).is_file():
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record.get("checkpoint_id") == checkpoint_id(checkpoint):
            return folder
    shutil.rmtree(folder, ignore_errors=True)
    export_checkpoint(checkpoint, folder, ExportOptions(), on_bytes)
    return folder


def _export_of_removed_checkpoint(text: str) -> ServedModel | None:
    """RUN@STEP whose checkpoint retention has removed, but whose export is still there."""
    name, step = split_step(text)
    if not isinstance(step, int):
        return None
    run = find_run(name)
    folder = expected_export(run, step)
    if (run.checkpoint(step) / "manifest.json").is_file() or not (folder / RECORD).is_file():
        return None
    return ServedModel(folder, run, run.name, model_config(folder))
