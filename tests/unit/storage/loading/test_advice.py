"""Advice on the window, and where samples come from."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainwright.config.data import DataConfig
from trainwright.storage.loading import advice as advice_module
from trainwright.storage.loading.advice import advise
from trainwright.storage.loading.training_data import TrainingData
from trainwright.storage.tokens.filesystem import Place
from trainwright.storage.tokens.reader import open_store

Make = Callable[..., Path]


def test_a_plain_store_on_a_local_disk_is_shuffled_whole(make_store: Make) -> None:
    found = advise(make_store(), 32)
    assert found.window is None
    assert "the whole store is shuffled" in found.why
    assert found.sequential_mb_per_s > 0


def test_slow_random_reads_are_made_larger(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(filesystem="lustre", how="plain", map_ms=9.0, plain_ms=4.0)
    monkeypatch.setattr(advice_module, "choose_how", lambda store: place)
    monkeypatch.setattr(advice_module, "_BLOCKS_PER_WINDOW", 2)
    found = advise(make_store(), 32)
    assert found.window == 128
    assert "4.0 ms on lustre" in found.why
    assert advise(make_store("other.zarr"), 2000).window is None  # it would be the whole store


def test_a_compressed_store_keeps_its_windows_chunks(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chunk is decoded once in a window, and no more are kept than the advice says."""
    monkeypatch.setattr(advice_module, "_DECODED_BYTES", 1 << 13)
    path = make_store(compression="zstd", shard_tokens=1024)
    found = advise(path, 4)
    assert found.window == 1024
    settings = {"train": [{"store": str(path)}], "sequence_length": 4, "window": found.window}
    data = TrainingData.open(DataConfig.model_validate(settings))
    shards = data._stores[0]._shards
    decoded: list[int] = []
    decode = shards._decode  # type: ignore[attr-defined]
    shards._decode = lambda chunk: decoded.append(chunk) or decode(chunk)  # type: ignore[attr-defined, func-returns-value]
    for position in range(0, 1024, 8):
        data.batch(position, 8)
    assert len(decoded) == len(set(decoded)) > 2


def test_where_a_sample_comes_from(make_store: Make, rng: random.Random) -> None:
    path = make_store()
    data = TrainingData.open(DataConfig.model_validate({"train": [{"store": str(path)}], "sequence_length": 48}))
    store = open_store(path)
    starts = store.document_index.within(0, store.num_tokens).tolist()
    for origin in data.explain(rng.randrange(1000), 20):
        tokens = data.batch(origin.position, 1).tokens[0].tolist()
        rebuilt: list[int] = []
        for part in origin.documents:
            begin = starts[part.document]
            assert part.start == begin + part.first
            rebuilt += store.read(begin + part.first, begin + part.last + 1).tolist()
        assert rebuilt == tokens
        assert origin.documents[0].text


STAGES = [{"until_tokens": 16 * 77}, {"until_tokens": 16 * 100, "weights": {"second": 1}}, {"weights": {"first": 1}}]


@pytest.mark.parametrize("stages", [[], STAGES], ids=["one mixture", "stages"])
def test_ranks_and_batch_sizes_may_change_at_any_step(
    make_store: Make, tmp_path: Path, rng: random.Random, stages: list[dict[str, Any]]
) -> None:
    """100 random schedules of ranks and batch sizes: the same samples, each once, whoever reads them."""
    first = make_store("first.zarr")
    second = make_store("second.zarr", source=tmp_path / "text" / "part1", tokenizer=first / "tokenizer")
    sources = [{"store": str(first), "weight": 0.7}, {"store": str(second), "weight": 0.3}]
    settings = DataConfig.model_validate({"train": sources, "sequence_length": 16, "window": 50, "stages": stages})
    total = 240
    expected = TrainingData.open(settings).batch(0, total).tokens
    data = TrainingData.open(settings)
    for _ in range(100):
        position, read = 0, np.zeros_like(expected)
        while position < total:
            size = min(rng.choice((1, 2, 3, 4, 8)), total - position)
            ranks = rng.choice([ranks for ranks in (1, 2, 3, 4, 8) if size % ranks == 0])
            for rank in rng.sample(range(ranks), ranks):
                at = position + rank * size // ranks
                read[at : at + size // ranks] = data.batch(at, size // ranks).tokens
            position += size
        assert np.array_equal(read, expected)
