"""Best-fit packing: every token in one sample, documents whole, in as few samples as the textbook method makes."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainwright.config.data import DataConfig
from trainwright.config.errors import FoundBad, UserError
from trainwright.storage.loading import packing as packing_module
from trainwright.storage.loading.best_fit import best_fit
from trainwright.storage.loading.packing import Packing, pack_store, packing_folder, verify_packings
from trainwright.storage.loading.training_data import TrainingData
from trainwright.storage.tokens.reader import How, open_store

from ..tokens.test_reader import flip

Make = Callable[..., Path]
LENGTH = 64


def config(store: Path, **fields: Any) -> DataConfig:
    settings = {"train": [{"store": str(store)}], "sequence_length": LENGTH, "packing": "best_fit", **fields}
    return DataConfig.model_validate(settings)


def one_by_one(lengths: list[int], capacity: int) -> list[int]:
    """Best-fit decreasing as the textbook has it; the room left in each sample."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [number for number, room in enumerate(rooms) if room >= length]
        if fitting:
            rooms[min(fitting, key=lambda number: rooms[number])] -= length
        else:
            rooms.append(capacity - length)
    return sorted(rooms)


def test_in_bulk_as_one_by_one(rng: random.Random) -> None:
    for _ in range(300):
        capacity = rng.randrange(2, 60)
        lengths = [min(capacity, 1 + int(rng.expovariate(4 / capacity))) for _ in range(rng.randrange(0, 150))]
        groups = best_fit(np.bincount(lengths, minlength=1).astype(np.int64), capacity)
        rooms = []
        for group in groups:
            room = capacity - sum(length * each for length, each in group.pieces)
            assert room >= 0
            rooms += [room] * group.count
        assert sorted(rooms) == one_by_one(lengths, capacity)
        packed = [length for group in groups for length, each in group.pieces for _ in range(each * group.count)]
        assert sorted(packed) == sorted(lengths)


@pytest.mark.parametrize(("how", "compression"), [("map", "none"), ("plain", "none"), ("map", "zstd")])
def test_every_token_is_in_one_sample(make_store: Make, how: How, compression: str) -> None:
    path = make_store(compression=compression)
    info = pack_store(path, LENGTH)
    store = open_store(path)
    whole = store.read(0, store.num_tokens)
    starts = store.document_index.within(0, store.num_tokens).tolist()
    stops = [*starts[1:], store.num_tokens]
    data = TrainingData.open(config(path, read=how))
    assert data.num_samples == info.num_samples
    batch = data.batch(0, data.num_samples)  # one epoch
    seen: dict[int, int] = {}
    for row, origin in enumerate(data.explain(0, data.num_samples)):
        column = 0
        for part in origin.documents:
            stop = part.start + part.last - part.first + 1
            assert starts[part.document] <= part.start < stop <= stops[part.document]
            size = stop - part.start
            assert np.array_equal(batch.tokens[row, column : column + size], whole[part.start : stop])
            assert batch.starts[row, column]
            assert not batch.starts[row, column + 1 : column + size].any()
            for place in range(part.start, stop):
                seen[place] = seen.get(place, 0) + 1
            column += size
        assert batch.filled[row] == column
        assert (batch.tokens[row, column:] == store.info.end_of_document).all()
        assert batch.starts[row, column:].tolist() == [True, *[False] * (LENGTH - column)][: LENGTH + 1 - column]
    twice = {place for place, count in seen.items() if count == 2}  # where pieces of a long document overlap
    long = [(start, stop) for start, stop in zip(starts, stops, strict=True) if stop - start > LENGTH + 1]
    assert twice == {place for start, stop in long for place in range(start + LENGTH, stop - 1, LENGTH)}
    assert len(long) == info.cut_documents > 0
    short = [start for start, stop in zip(starts, stops, strict=True) if stop - start < 2]
    assert info.dropped_documents == len(short) > 0
    assert set(seen) == set(range(store.num_tokens)) - set(short)
    assert info.padding == batch.tokens.size - sum(seen.values())


def test_an_index_of_many_chunks(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_store()
    pack_store(path, LENGTH)
    whole = Packing(path, LENGTH, 1)
    expected = whole.pieces(np.arange(whole.info.num_samples))
    shutil.rmtree(packing_folder(path, LENGTH, 1))
    monkeypatch.setattr("trainwright.storage.tokens.index_writer.INDEX_CHUNK", 7)
    monkeypatch.setattr("trainwright.storage.tokens.index_writer.INDEX_SHARD", 14)
    pack_store(path, LENGTH)
    again = Packing(path, LENGTH, 1)
    found = again.pieces(np.arange(again.info.num_samples))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert again.digest != whole.digest
    verify_packings(path)


def test_what_is_predicted_is_neither_padding_nor_another_documents_beginning(make_store: Make) -> None:
    from trainwright.config.run import RunConfig
    from trainwright.parallelism.batches import BatchReader

    path = make_store()
    pack_store(path, LENGTH)
    store = open_store(path)
    lengths = np.diff(store.document_index.within(0, store.num_tokens), append=store.num_tokens)
    data = TrainingData.open(config(path))
    for mask in (True, False):
        settings = {
            "schema_version": 1,
            "name": "x",
            "model": "m",
            "data": config(path, document_mask=mask).model_dump(),
            "train": {"steps": 1, "global_batch_size": data.num_samples},
        }
        reader = BatchReader(RunConfig.model_validate(settings), data, 0, 1)
        samples = reader.read(0)
        reader.close()
        predicted = int((lengths - 1)[lengths > 1].sum())  # each token of a document but the first
        if mask:
            assert int(samples.counted.sum()) == predicted
            assert samples.documents is not None
        else:  # the first token of a document is predicted from the one before it in the sample
            assert int(samples.counted.sum()) == int((data.batch(0, data.num_samples).filled - 1).sum()) > predicted


def test_what_cannot_be_packed_or_was_not(make_store: Make) -> None:
    path = make_store()
    with pytest.raises(UserError, match=r"data\.packing: best_fit needs an index .*run `trainwright data pack"):
        TrainingData.open(config(path))
    with pytest.raises(UserError, match="--sequence-length: 1 is below 2"):
        pack_store(path, 1)
    pack_store(path, LENGTH)
    with pytest.raises(UserError, match="packing/1/64: exists already"):
        pack_store(path, LENGTH)
    record = packing_folder(path, LENGTH, 1) / "packing.json"
    text = record.read_text()
    record.write_text(text.replace('"version": 3', '"version": 9'))
    with pytest.raises(UserError, match="packing version 9 is not 3"):
        Packing(path, LENGTH, 1)
    record.write_text("{")
    with pytest.raises(FoundBad, match=r"packing\.json: not what"):
        Packing(path, LENGTH, 1)


def test_damage_is_named(make_store: Make, rng: random.Random) -> None:
    path = make_store()
    pack_store(path, LENGTH)
    folder = packing_folder(path, LENGTH, 1)
    for name in ("places/c/0", "lengths/c/0", "samples/c/0"):
        data = (folder / name).read_bytes()
        flip(folder / name, rng.choice([rng.randrange(1 << 15), rng.randrange(-4000, 0)]))  # the chunk, or the index
        with pytest.raises(FoundBad, match=f"{name}: .* fails its crc32c"):
            TrainingData.open(config(path)).batch(0, 5)
        with pytest.raises(FoundBad, match=f"{name}: its digest is not the recorded one"):
            verify_packings(path)
        (folder / name).write_bytes(data[:-1])
        with pytest.raises(FoundBad, match=f"{name}: truncated"):
            TrainingData.open(config(path)).check_files()
        (folder / name).write_bytes(data)
    verify_packings(path)


def test_a_failure_leaves_nothing(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_store()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing_module, "write_durably", full)
    with pytest.raises(OSError, match="No space left"):
        pack_store(path, LENGTH)
    assert list((path / "packing" / "1").iterdir()) == []
