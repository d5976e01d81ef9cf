"""Line 4: the whole loader in the training process against litdata's StreamingDataLoader with one worker process.

Run: make bench-storage ARGS=whole_loader
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainwright.config.data import DataConfig, Source
from trainwright.storage.loading.ahead import Ahead
from trainwright.storage.loading.training_data import TrainingData

from . import peers
from .corpus import open_corpus
from .formats import litdata_folder, our_store
from .readers import by_iterator
from .report import Row, rates
from .settings import BATCH, LENGTH, Settings, start
from .timing import alternate

_SECONDS = 4
"""Longer pieces than elsewhere: what a worker had ready when its turn came must not count."""


def measure(settings: Settings) -> bool:
    """Print the table; whether the figure was reached."""
    corpus = open_corpus(settings)
    store, folder = our_store(settings, corpus), litdata_folder(settings, corpus)
    theirs = by_iterator(lambda: _litdata(folder))
    rows = []
    for name, ahead, wanted in (("its thread reads ahead", True, 10.0), ("without that thread", False, None)):
        works = by_iterator(lambda ahead=ahead: _ours(store, ahead)), theirs  # type: ignore[misc]
        for work in works:
            work(settings.seconds * 2)
        rows.append(Row(name, alternate(*works, settings.seconds * _SECONDS, settings.rounds), wanted, "wall"))
    title = "4. The whole loader, shuffled int64 torch batches of 16, against litdata's with one worker process"
    return rates(title, rows)


def _ours(store: Path, ahead: bool) -> Iterator[Any]:
    """An epoch as the trainer reads it."""
    import torch

    data = TrainingData.open(DataConfig(train=[Source(store=str(store))], sequence_length=LENGTH))

    def read(position: int) -> Any:
        return torch.from_numpy(data.batch(position, BATCH, starts=False).tokens)

    reader = Ahead(read, BATCH)
    try:
        for position in range(0, data.num_samples - BATCH, BATCH):
            yield reader.get(position) if ahead else read(position)
    finally:
        reader.close()


def _litdata(folder: Path) -> Iterator[Any]:
    """An epoch of shuffled batches; the store is uint16, as ours, so they are widened here."""
    import torch
    from litdata import StreamingDataLoader

    dataset = peers.litdata_dataset(folder, shuffle=True)
    for batch in StreamingDataLoader(dataset, batch_size=BATCH, num_workers=1):
        yield batch.to(torch.int64)


if __name__ == "__main__":
    start(measure)
