"""Offsets and cumulative lengths of documents, against tokens looked at one by one."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trainwright.config.run import RunConfig
from trainwright.parallelism.batches import BatchReader
from trainwright.storage.loading.offsets import DocumentOffsets
from trainwright.storage.loading.packing import pack_store
from trainwright.storage.loading.training_data import TrainingData
from trainwright.storage.tokens.reader import How

Make = Callable[..., Path]


def cumulative(starts: list[list[bool]]) -> list[int]:
    """Token by token."""
    ends, place = [], 0
    for sample in starts:
        for column, begins in enumerate(sample):
            if begins or column == 0:
                ends.append(place)
            place += 1
    return [*ends, place]


def check(documents: DocumentOffsets, starts: NDArray[np.bool_], rng: random.Random) -> None:
    rows = starts.tolist()
    for row, sample in enumerate(rows):
        own = documents.offsets[documents.bounds[row] : documents.bounds[row + 1]]
        assert own.tolist() == [column for column, begins in enumerate(sample) if begins or column == 0]
    for first, stop in [(0, len(rows)), sorted(rng.sample(range(len(rows) + 1), 2))]:
        found = documents.cumulative(first, stop)
        assert found.dtype == documents.offsets.dtype == np.int32
        assert found.tolist() == cumulative(rows[first:stop])


def test_random_documents(rng: random.Random) -> None:
    for _ in range(30):
        count, length = rng.randint(1, 6), rng.choice((1, 2, 17, 80))
        share = rng.choice((0.0, 0.03, 0.5, 1.0))  # no document begins, or one with every token
        starts = np.array([[rng.random() < share for _ in range(length)] for _ in range(count)])
        before = starts.copy()
        check(DocumentOffsets.of(starts), starts, rng)
        assert np.array_equal(starts, before)


@pytest.mark.parametrize("how", ["map", "plain"])  # in compiled code, and in NumPy
@pytest.mark.parametrize("packing", ["split", "best_fit"])
def test_batches_of_a_store(make_store: Make, rng: random.Random, how: How, packing: str) -> None:
    """Its documents have up to 400 words; one is empty."""
    path = make_store()
    for length in (3, 48, 1000):  # many samples to a document, and many documents to a sample
        if packing == "best_fit":
            pack_store(path, length)
        check_batches(path, rng, how, packing, length)


def check_batches(path: Path, rng: random.Random, how: How, packing: str, length: int) -> None:
    data: dict[str, Any] = {"train": [{"store": str(path)}], "sequence_length": length, "packing": packing}
    settings = {
        "schema_version": 1,
        "name": "x",
        "model": "m",
        "data": {**data, "read": how, "document_mask": True},
        "train": {"steps": 1, "global_batch_size": 8},
    }
    run = RunConfig.model_validate(settings)
    opened = TrainingData.open(run.data)
    reader = BatchReader(run, opened, 0, 1)
    for position in (0, rng.randrange(opened.num_samples)):
        samples = reader.read(position)
        assert samples.documents is not None
        starts = opened.batch(position, 8).starts[:, :-1]
        check(samples.documents, starts, rng)
        end = opened.end_of_document
        for row in range(8) if packing == "split" else ():  # a document begins after the token that ends one
            assert starts[row, 1:].tolist() == (samples.tokens[row, :-2] == end).tolist()
    reader.close()
