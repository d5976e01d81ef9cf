"""What is predicted is what the mask says, however the store is read, cut and mixed."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from trainwright.config.data import DataConfig
from trainwright.config.run import RunConfig
from trainwright.parallelism.batches import BatchReader
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.loading.packing import pack_store
from trainwright.storage.loading.repairs import Repair
from trainwright.storage.loading.training_data import BadSource, TrainingData

from ..chats import chat_store
from ..conftest import quiet
from ..tokens.test_reader import flip

LENGTH = 48


def config(*stores: Path, **fields: Any) -> DataConfig:
    sources = [{"store": str(store)} for store in stores]
    return DataConfig.model_validate({"train": sources, "sequence_length": LENGTH, **fields})


def by_hand(data: TrainingData, position: int, count: int) -> list[list[int]]:
    """The mask of samples, put together by `explain` and zarr-python; padding is 1."""
    rows = []
    for origin in data.explain(position, count):
        folder = Path(origin.store) / "loss_mask"
        row: list[int] = []
        for part in origin.documents:
            size = part.last - part.first + 1
            whole = zarr.open_array(folder, mode="r")[:] if folder.exists() else None
            row += [1] * size if whole is None else whole[part.start : part.start + size].tolist()
        rows.append(row + [1] * (LENGTH + 1 - len(row)))
    return rows


@pytest.mark.parametrize("how", ["map", "plain", "numpy"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("packing", ["split", "best_fit"])
def test_however_it_is_read(
    tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch, how: str, compression: str, packing: str
) -> None:
    path = chat_store(tmp_path, rng, compression=compression, count=60)
    pack_store(path, LENGTH)
    if how == "numpy":
        monkeypatch.setattr("trainwright.storage.tokens.reader.can_map", lambda: False)
    settings = config(path, read="map" if how == "numpy" else how, packing=packing, window=rng.choice([None, 32]))
    data = TrainingData.open(settings)
    batch = data.batch(0, 40)
    assert batch.trained is not None
    assert batch.trained.tolist() == by_hand(data, 0, 40)
    part = data.batch(17, 5).trained
    assert part is not None
    assert np.array_equal(part, batch.trained[17:22])


def test_mixed_with_a_store_without_a_mask(tmp_path: Path, rng: random.Random) -> None:
    chats = chat_store(tmp_path, rng, count=60)
    (tmp_path / "plain.txt").write_text("hello world " * 3000)
    plain = tmp_path / "plain.zarr"
    build_store([tmp_path / "plain.txt"], plain, BuildOptions(tokenizer=chats / "tokenizer"), quiet)
    data = TrainingData.open(config(plain, chats))
    batch = data.batch(0, 40)
    assert batch.trained is not None
    assert batch.trained.tolist() == by_hand(data, 0, 40)
    assert batch.trained.all(axis=1).sum() >= 20
    assert TrainingData.open(config(plain)).batch(0, 4).trained is None
    assert TrainingData.open(config(plain, chats, prompt_mask=False)).batch(0, 4).trained is None


def test_repairs_bring_the_mask_of_what_is_read_instead(tmp_path: Path, rng: random.Random) -> None:
    path = chat_store(tmp_path, rng)
    mask = zarr.open_array(path / "loss_mask", mode="r")[:]
    sound = TrainingData.open(config(path))
    tokens = sound.batch(0, sound.num_samples).tokens
    flip(path / "loss_mask" / "c" / "2", 0)
    with pytest.raises(BadSource, match=r"loss_mask/c/2: inner chunk 0 fails its crc32c") as caught:
        TrainingData.open(config(path)).batch(0, sound.num_samples)
    assert caught.value.chunk == 2
    data = TrainingData.open(config(path))
    data.replace_bad([Repair(source=0, chunk=2, position=0)])
    batch = data.batch(0, sound.num_samples)
    assert batch.trained is not None
    assert batch.replaced > 0
    for row, origin in enumerate(data.explain(0, sound.num_samples)):
        start = origin.sample * LENGTH
        assert batch.trained[row].tolist() == mask[start : start + LENGTH + 1].tolist()
    assert not np.array_equal(batch.tokens, tokens)


@pytest.mark.parametrize("document_mask", [False, True])
@pytest.mark.parametrize("packing", ["split", "best_fit"])
def test_what_the_trainer_predicts(tmp_path: Path, rng: random.Random, document_mask: bool, packing: str) -> None:
    path = chat_store(tmp_path, rng, count=60)
    pack_store(path, LENGTH)
    data = TrainingData.open(config(path, document_mask=document_mask, packing=packing))
    run = RunConfig.model_validate(
        {
            "schema_version": 1,
            "name": "x",
            "model": "m",
            "data": config(path, document_mask=document_mask, packing=packing).model_dump(),
            "train": {"steps": 1, "global_batch_size": 24},
        }
    )

    def shares(size: int) -> np.ndarray[Any, Any]:
        readers = [BatchReader(run, data, rank, size) for rank in range(size)]
        counted = [reader.read(24).counted for reader in readers]
        for reader in readers:
            reader.close()
        return np.concatenate(counted)

    batch = data.batch(24, 24)
    expected = np.array(by_hand(data, 24, 24))[:, 1:].astype(bool)
    expected &= np.arange(1, LENGTH + 1) < batch.filled[:, None]
    if document_mask:
        expected &= ~batch.starts[:, 1:]
    assert 0 < expected.sum() < expected.size
    for size in (1, 2, 4):
        assert np.array_equal(shares(size), expected)
