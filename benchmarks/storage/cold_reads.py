"""Lines 1 and 6 with a cold page cache: files on a disk, dropped from the cache before each turn.

Run: make bench-storage ARGS=cold_reads
"""

import gc
import os
import shutil
from pathlib import Path

import numpy as np

from trainwright.config.data import DataConfig, Source
from trainwright.storage.loading.training_data import TrainingData
from trainwright.storage.tokens.reader import open_store

from .corpus import open_corpus
from .formats import our_store
from .readers import memmap, ours, random_batches
from .report import Row, rates
from .settings import BATCH, LENGTH, WIDTH, Settings, start
from .timing import Work, alternate

_BATCHES = 200


def measure(settings: Settings) -> bool:
    """Print the table; nothing is promised here, since the disk decides."""
    corpus = open_corpus(settings)
    store, plain = settings.disk / "cold-store", settings.disk / "cold.bin"
    try:
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(our_store(settings, corpus), store)
        shutil.copyfile(corpus.path, plain)
        theirs = _memmap(plain)
        rows = [
            Row("reader, checksums on", alternate(_reader(store), theirs, 0, settings.rounds)),
            Row(
                "whole loader, which tells the system what comes", alternate(_loader(store), theirs, 0, settings.rounds)
            ),
        ]
    finally:
        shutil.rmtree(store, ignore_errors=True)
        plain.unlink(missing_ok=True)
    title = (
        f"1, 6. Cold: {_BATCHES} random batches of 16 right after the files left the page cache, against a memory map"
    )
    return rates(title, rows)


def _drop(path: Path) -> None:
    """Have the system forget a file's pages, which nobody may have mapped."""
    for file in [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _memmap(path: Path) -> Work:
    def work(_: float) -> int:
        tokens = np.asarray(np.memmap(path, np.uint16, "r"))
        read = memmap(tokens)
        batches = random_batches((len(tokens) - 1) // LENGTH)[:_BATCHES]
        for batch in batches:
            read(batch)
        del tokens, read
        _drop(path)
        return len(batches) * BATCH * WIDTH

    _drop(path)
    return work


def _reader(path: Path) -> Work:
    def work(_: float) -> int:
        store = open_store(path)
        read = ours(store)
        batches = random_batches((store.num_tokens - 1) // LENGTH)[:_BATCHES]
        for batch in batches:
            read(batch)
        store.close()
        _drop(path)
        return len(batches) * BATCH * WIDTH

    _drop(path)
    return work


def _loader(path: Path) -> Work:
    def work(_: float) -> int:
        data = TrainingData.open(DataConfig(train=[Source(store=str(path))], sequence_length=LENGTH))
        count = min(_BATCHES, data.num_samples // BATCH)
        for number in range(count):
            data.batch(number * BATCH, BATCH, starts=False)
        del data  # which lets the maps go
        gc.collect()
        _drop(path)
        return count * BATCH * WIDTH

    _drop(path)
    return work


if __name__ == "__main__":
    start(measure)
