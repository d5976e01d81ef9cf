"""The ranks' shares of the batches, read through the trainer's own reader: nothing twice and nothing missing."""

import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from trainwright.config.run import RunConfig
from trainwright.parallelism.batches import BatchReader
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.building.sources import Selection
from trainwright.storage.loading.training_data import TrainingData

NUM_SCHEDULES = 100 if os.environ.get("WHOLE_MATRIX") == "1" else 25
LENGTH, TOTAL = 16, 400
STAGES = [
    {"until_tokens": 77 * LENGTH},
    {"until_tokens": 150 * LENGTH, "weights": {"few": 1}},
    {"until_tokens": 151 * LENGTH, "weights": {"many": 1}},
    {"weights": {"many": 3, "few": 2}},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Two stores in four stages; the small one is read several times."""
    folder = tmp_path_factory.mktemp("batches")
    for name, count in (("many", 900), ("few", 300)):
        (folder / f"{name}.txt").write_text(" ".join(f"{name} {number}" for number in range(count)))
        options = BuildOptions(
            vocab_size=None if name == "few" else 300,
            tokenizer=folder / "many.zarr" / "tokenizer" if name == "few" else None,
            shard_tokens=2048,
            selection=Selection(),
        )
        build_store([folder / f"{name}.txt"], folder / f"{name}.zarr", options, lambda *_: None)
    sources = [{"store": str(folder / "many.zarr"), "weight": 7}, {"store": str(folder / "few.zarr"), "weight": 3}]
    return RunConfig.model_validate(
        {
            "schema_version": 1,
            "name": "batches",
            "model": "model.json",
            "data": {"train": sources, "sequence_length": LENGTH, "window": 50, "stages": STAGES},
            "train": {"steps": 1, "global_batch_size": 1},
        }
    )


def schedule(rng: random.Random) -> Iterator[tuple[int, int, int, int]]:
    """Attempts of a run: first position, steps, batch size and number of data ranks of each."""
    position = 0
    while position < TOTAL:
        size = rng.choice([size for size in (1, 2, 3, 4, 6, 8, 12, 24) if size <= TOTAL - position])
        steps = rng.randrange(1, 1 + min(8, (TOTAL - position) // size))
        yield position, steps, size, rng.choice([ranks for ranks in (1, 2, 3, 4, 6, 8) if size % ranks == 0])
        position += steps * size


def test_every_schedule_of_ranks_and_batches_reads_the_same(run: RunConfig) -> None:
    """Random schedules of ranks and batch sizes, in every stage and across stages: the samples of one reader."""
    seed = random.SystemRandom().randrange(1 << 32)
    rng = random.Random(seed)
    expected = TrainingData.open(run.data).batch(0, TOTAL).tokens
    data = TrainingData.open(run.data)
    for _ in range(NUM_SCHEDULES):
        read = np.zeros_like(expected)
        for position, steps, size, ranks in schedule(rng):
            train = run.train.model_copy(update={"global_batch_size": size})
            for rank in range(ranks):
                reader = BatchReader(run.model_copy(update={"train": train}), data, rank, ranks)
                with closing(reader):
                    for step in range(steps):
                        first = position + step * size + rank * size // ranks
                        read[first : first + size // ranks] += reader.read(position + step * size).tokens
        assert np.array_equal(read, expected), f"seed {seed}: read by another order, twice or not at all"
        assert Counter(map(bytes, read)) == Counter(map(bytes, expected))
    print(f"order: {NUM_SCHEDULES} schedules of ranks and batch sizes over {TOTAL} samples in 4 stages, seed {seed}")
