"""What the trainer reads: a pure function of the config and the position."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainwright.config.data import DataConfig
from trainwright.config.errors import UserError
from trainwright.config.model import ModelShape
from trainwright.config.model_reader import read_model
from trainwright.storage.loading.mixture import Mixture
from trainwright.storage.loading.order import Order
from trainwright.storage.loading.training_data import TrainingData
from trainwright.storage.tokens.reader import open_store

Make = Callable[..., Path]


def config(*stores: Path, weights: tuple[float, ...] = (), **fields: Any) -> DataConfig:
    sources = [{"store": str(store)} for store in stores]
    for source, weight in zip(sources, weights, strict=False):
        source["weight"] = weight  # type: ignore[assignment]
    return DataConfig.model_validate({"train": sources, "sequence_length": 32, **fields})


def test_batches_follow_the_order(make_store: Make) -> None:
    path = make_store()
    data = TrainingData.open(config(path))
    store = open_store(path)
    whole = store.read(0, store.num_tokens)
    begins = np.zeros(len(whole), bool)
    begins[store.document_index.within(0, len(whole))] = True
    assert data.num_samples == (store.num_tokens - 1) // 32
    order = Order(data.num_samples, 1234)
    position = data.num_samples - 5  # across the end of an epoch
    batch = data.batch(position, 12)
    for row, sample in enumerate(order.samples(np.arange(position, position + 12))):
        assert np.array_equal(batch.tokens[row], whole[sample * 32 : sample * 32 + 33])
        assert np.array_equal(batch.starts[row], begins[sample * 32 : sample * 32 + 33])
    assert (batch.tokens.dtype.name, batch.starts.dtype.name) == ("int64", "bool")


def test_batch_size_and_the_reader_that_asks_do_not_matter(make_store: Make, rng: random.Random) -> None:
    settings = config(make_store(), window=64, seed=rng.randrange(1 << 63))
    whole = TrainingData.open(settings).batch(100, 40)
    other = TrainingData.open(settings)
    for size in (1, 3, 16):
        for start in rng.sample(range(100, 140 - size), 5):
            part = other.batch(start, size)
            assert np.array_equal(part.tokens, whole.tokens[start - 100 : start - 100 + size])
            assert np.array_equal(part.starts, whole.starts[start - 100 : start - 100 + size])


def test_a_mixture_deals_out_its_stores(make_store: Make, tmp_path: Path) -> None:
    first = make_store("first.zarr")
    tokenizer = first / "tokenizer"
    second = make_store("second.zarr", source=tmp_path / "text" / "part1", tokenizer=tokenizer)
    data = TrainingData.open(config(first, second, weights=(0.75, 0.25)))
    alone = [TrainingData.open(config(store)) for store in (first, second)]
    batch = data.batch(0, 400)
    sources, places = Mixture([3, 1]).locate(np.arange(400))
    assert np.bincount(sources).tolist() == [300, 100]
    for row in range(400):
        own = alone[sources[row]].batch(int(places[row]), 1)
        assert np.array_equal(batch.tokens[row], own.tokens[0])
    assert data.num_samples == sum(one.num_samples for one in alone)


def test_another_tokenizer_in_a_mixture_is_refused(make_store: Make) -> None:
    first, second = make_store("first.zarr"), make_store("second.zarr", vocab_size=280)
    with pytest.raises(UserError, match=r"data\.train\.1\.store: .*second\.zarr has another tokenizer"):
        TrainingData.open(config(first, second))


def test_a_store_shorter_than_a_sample_is_refused(make_store: Make) -> None:
    path = make_store()
    tokens = open_store(path).num_tokens
    assert TrainingData.open(config(path, sequence_length=tokens - 1)).num_samples == 1
    with pytest.raises(UserError, match=rf"data\.train\.0\.store: .*store\.zarr holds {tokens} tokens"):
        TrainingData.open(config(path, sequence_length=tokens))


def test_a_missing_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.zarr: not a token store"):
        TrainingData.open(config(tmp_path / "nowhere.zarr"))


def test_the_model_must_have_every_token(make_store: Make, run_file: Path) -> None:
    data = TrainingData.open(config(make_store()))
    assert data.vocab_size == 300
    model = read_model(run_file.parent / "model")
    data.check_model(model)
    small = ModelShape(**{**vars(model), "vocab_size": 299})
    with pytest.raises(UserError, match=r"vocab_size 299 is below the 300 of .*tokenizer"):
        data.check_model(small)


def test_what_else_the_trainer_asks_for(make_store: Make) -> None:
    path = make_store()
    data = TrainingData.open(config(path))
    assert data.tokenizer_folder == path / "tokenizer"
    assert data.tokenizer_fingerprint == open_store(path).info.tokenizer_fingerprint
    assert data.end_of_document == 0
    assert data.order_record == {
        "version": 1,
        "seed": 1234,
        "window": None,
        "packing": [],
        "stages": [{"first": 0, "quotas": [1]}],
    }
