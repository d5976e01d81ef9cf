"""One small run verified: its ranks computed as forks of this process, the reference here, and both compared."""

import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ...config.layout_rules import layout_of
from ...config.loading import load_frozen
from ...config.model import ModelShape
from ...config.model_reader import read_model
from ...config.run import RunConfig
from ...config.versions import installed_versions
from ..batches import BatchReader
from .drawn import DrawnData

_PATIENCE_S = 600.0


def prepare(engine: str) -> None:
    """Import what ranks need, once, and keep torch to one thread: OpenMP's threads do not survive a fork."""
    torch.set_num_threads(1)
    import_module(f"..{engine}.imports", __package__)


def verify(folder: Path) -> dict[str, Any]:
    """Of the small run in a folder (run.yaml, config.json): findings, largest differences, seconds, versions.

    Raises FoundBad if a rank fails.
    """
    from .compare import Comparer
    from .ranks import compute, run_forked

    run, model = load_frozen(folder / "run.yaml"), read_model(folder)
    layout = layout_of(run, model)
    began = time.perf_counter()
    run_forked(layout.world_size, lambda rank: compute(run, model, rank, folder / "ranks"), _PATIENCE_S)
    comparer = Comparer(model, folder / "ranks", run.train.optimizer.name)
    comparison = comparer.compare(_reference(run, model, folder), run.train.seed)
    return {
        "layout": layout.sizes(),
        "findings": [asdict(finding) for finding in comparison.findings],
        "largest": comparison.largest,
        "seconds": round(time.perf_counter() - began, 1),
        "versions": installed_versions(),
    }


def _reference(run: RunConfig, model: ModelShape, folder: Path) -> list[Any]:
    from .ranks import LEARNING_RATE, STEPS
    from .reference import Reference

    reference = Reference(run, model, folder)
    data = DrawnData(run.data, model.vocab_size, run.train.micro_batch_size)
    reader = BatchReader(run, data, 0, 1)  # type: ignore[arg-type]
    try:
        size = run.train.global_batch_size
        return [reference.step(reader.read(number * size), LEARNING_RATE) for number in range(STEPS)]
    finally:
        reader.close()
