"""Samples that touch a bad chunk are replaced, the same for everybody who knows of it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainwright.config.data import DataConfig
from trainwright.config.errors import FoundBad
from trainwright.storage.loading.packing import pack_store
from trainwright.storage.loading.repairs import Repair
from trainwright.storage.loading.training_data import BadSource, TrainingData
from trainwright.storage.tokens.reader import open_store

from ..tokens.test_reader import flip

Make = Callable[..., Path]
LENGTH = 32


def config(*stores: Path, **fields: Any) -> DataConfig:
    sources = [{"store": str(store), "weight": 0.5} for store in stores]
    return DataConfig.model_validate({"train": sources, "sequence_length": LENGTH, **fields})


@pytest.mark.parametrize("packing", ["split", "best_fit"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_only_what_touches_the_chunk_is_replaced(
    make_store: Make, tmp_path: Path, rng: random.Random, packing: str, compression: str
) -> None:
    first = make_store("first.zarr", compression=compression)
    second = make_store("second.zarr", tmp_path / "text" / "part1", tokenizer=first / "tokenizer")
    for store in (first, second):
        pack_store(store, LENGTH)
    settings = config(first, second, packing=packing)
    sound = TrainingData.open(settings)
    total = sound.num_samples
    expected, origins = sound.batch(0, total), sound.explain(0, total)
    flip(first / "c" / "2", 40)  # shards have one chunk here
    with pytest.raises(BadSource, match=r"first\.zarr/c/2: inner chunk 0") as caught:
        TrainingData.open(settings).batch(0, total)
    assert (caught.value.source, caught.value.chunk) == (0, 2)
    begin, end = 2 * open_store(first).info.chunk_tokens, 3 * open_store(first).info.chunk_tokens
    since = total // 2
    touching = [
        origin.store == str(first)
        and any(part.start < end and part.start + part.last - part.first >= begin for part in origin.documents)
        for origin in origins
    ]
    repaired, other = TrainingData.open(settings), TrainingData.open(settings)
    for data in (repaired, other):
        data.replace_bad([Repair(source=0, chunk=2, position=since)])
    batch = repaired.batch(since, total - since)
    assert batch.replaced == sum(touching[since:]) > 0
    for row, position in enumerate(range(since, total)):
        same = np.array_equal(batch.tokens[row], expected.tokens[position])
        assert same or touching[position]
    assert any(touching[:since])
    with pytest.raises(BadSource):  # what was consumed before is still the order's own
        repaired.batch(0, since)
    for _ in range(20):  # whoever reads it, in whatever pieces
        start = rng.randrange(since, total - 8)
        part = other.batch(start, 8)
        assert np.array_equal(part.tokens, batch.tokens[start - since : start - since + 8])


def test_a_store_without_a_good_chunk_ends_it(make_store: Make) -> None:
    path = make_store()
    data = TrainingData.open(config(path))
    data.replace_bad([Repair(0, chunk, 0) for chunk in range(open_store(path).info.num_chunks)])
    with pytest.raises(FoundBad, match=r"data\.train: too many chunks are bad"):
        data.batch(0, 1)
