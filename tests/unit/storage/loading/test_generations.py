"""A run reads the generation of a store that it began with, however the store grows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainwright.config.data import DataConfig
from trainwright.config.errors import UserError
from trainwright.config.loading import load_frozen, load_run
from trainwright.launchers.submission import submit_run
from trainwright.storage.building.append import append_store
from trainwright.storage.building.build import BuildOptions
from trainwright.storage.loading.packing import pack_store, verify_packings
from trainwright.storage.loading.training_data import TrainingData
from trainwright.storage.tokens.verify import verify_store

Make = Callable[..., Path]


def config(store: Path, generation: int | None = None, **fields: Any) -> DataConfig:
    source = {"store": str(store), "generation": generation}
    return DataConfig.model_validate({"train": [source], "sequence_length": 32, **fields})


def grow(store: Path, folder: Path) -> None:
    append_store([folder], store, BuildOptions(workers=1), (lambda *_: None, lambda _: None))


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("packing", ["split", "best_fit"])
def test_what_is_appended_does_not_change_an_older_generation(
    make_store: Make, tmp_path: Path, compression: str, packing: str
) -> None:
    path = make_store(compression=compression)
    pack_store(path, 32)
    data = TrainingData.open(config(path, packing=packing))
    assert data.generations == [1]
    before = data.batch(0, 60)
    grow(path, tmp_path / "text" / "part2")
    for again in (data, TrainingData.open(config(path, 1, packing=packing))):
        batch = again.batch(0, 60)
        assert np.array_equal(batch.tokens, before.tokens)
        assert np.array_equal(batch.starts, before.starts)
        assert np.array_equal(batch.filled, before.filled)
        again.check_files()
    if packing == "best_fit":
        with pytest.raises(UserError, match=r"data\.packing: .*generation 2"):
            TrainingData.open(config(path, packing=packing))
        pack_store(path, 32)
        verify_packings(path)
    newest = TrainingData.open(config(path, packing=packing))
    assert newest.generations == [2]
    assert newest.num_samples > data.num_samples
    verify_store(path, lambda done, total: None)
    with pytest.raises(
        UserError, match=r"data\.train\.0\.generation: 3, which the store does not have; use one of 1, 2"
    ):
        TrainingData.open(config(path, 3))


def test_submitting_pins_the_generation(run_file: Path, make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store()
    monkeypatch.setattr("trainwright.launchers.submission.start_attempt", lambda *_: None)
    submit_run(load_run(run_file, []), source=run_file)
    (frozen,) = run_file.parent.glob("runs/*/run.yaml")
    assert [source.generation for source in load_frozen(frozen).data.train] == [1]
