"""Line 3: random samples from a token store against litdata, MosaicML streaming, tensorstore, Megatron and zarr-python.

Run: make bench-storage ARGS=read_peers
"""

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainwright.storage.tokens.reader import TokenStore, open_store

from . import formats, peers
from .corpus import Corpus, open_corpus
from .readers import Read, by_iterator, by_number, check, ours, ours_torch, random_batches
from .report import Row, rates
from .settings import BATCH, LENGTH, WIDTH, Settings, parse, start
from .timing import Work, alternate

Table = Callable[[Settings, Corpus, TokenStore], list[Row]]


def measure(settings: Settings) -> bool:
    """Print the table; whether the figures were reached."""
    formats.our_store(settings, open_corpus(settings))
    rows = [row for name in _PEERS for row in _in_own_process(name, settings)]
    return rates("3. Random samples against other readers: same tokens, same dtype, same fields, batches of 16", rows)


def _in_own_process(name: str, settings: Settings) -> list[Row]:
    """Rows of one peer, whose threads would otherwise run on while the next one is timed."""
    with tempfile.NamedTemporaryFile() as file:
        command = [sys.executable, "-W", "ignore", "-m", f"{__package__}.read_peers", "child", name, file.name]
        subprocess.run([*command, *settings.arguments], check=True, timeout=1800)
        rows: list[Row] = pickle.load(file)
        return rows


def _child(name: str, file: str, settings: Settings) -> None:
    corpus = open_corpus(settings)
    try:
        rows = _PEERS[name](settings, corpus, open_store(formats.our_store(settings, corpus)))
    except ImportError as error:
        rows = [Row(f"{name}: {error}", None, 1.0)]
    Path(file).write_bytes(pickle.dumps(rows))
    os._exit(0)  # peers leave threads and processes behind


def litdata(settings: Settings, corpus: Corpus, store: TokenStore) -> list[Row]:
    """uint16 tensors; the faster of both ways counts."""
    folder = formats.litdata_folder(settings, corpus)
    number, batches = peers.litdata_by_number(folder), random_batches(len(corpus.tokens) // WIDTH)
    check(number, corpus.tokens, batches, WIDTH)
    mine = ours_torch(store, "uint16")
    rows = [_row("litdata dataset[i]", settings, store, mine, by_number(number, batches))]
    _check_iterator(peers.litdata_shuffled(folder), corpus)
    iteration = by_iterator(lambda: peers.litdata_shuffled(folder))
    rows.append(_row("litdata shuffled iteration", settings, store, mine, iteration))
    return _assert_fastest(rows, 8)


def mosaic(settings: Settings, corpus: Corpus, store: TokenStore) -> list[Row]:
    """uint16 arrays; the faster of both ways counts."""
    folder = formats.mosaic_folder(settings, corpus)
    number, batches = peers.mosaic_by_number(folder), random_batches(len(corpus.tokens) // WIDTH)
    check(number, corpus.tokens, batches, WIDTH)
    rows = [_row("MosaicML streaming dataset[i]", settings, store, ours(store), by_number(number, batches))]
    _check_iterator(peers.mosaic_shuffled(folder), corpus)
    iteration = by_iterator(lambda: peers.mosaic_shuffled(folder))
    rows.append(_row("MosaicML streaming shuffled iteration", settings, store, ours(store), iteration))
    return _assert_fastest(rows, 20)


def tensorstore(settings: Settings, corpus: Corpus, store: TokenStore) -> list[Row]:
    """uint16 arrays, from the token store and from an array of its own; the faster counts."""
    own = formats.tensorstore_array(settings, corpus)
    folders = {"our token store": Path(str(store.path)), "its own array, no checksums": own}
    return _assert_fastest(_zarr_rows("tensorstore", folders, peers.tensorstore_reader, (settings, corpus, store)), 20)


def zarr(settings: Settings, corpus: Corpus, store: TokenStore) -> list[Row]:
    """uint16 arrays from the token store; the faster of both ways counts."""
    common = (settings, corpus, store)
    rows = _zarr_rows("zarr-python", {"slices": Path(str(store.path))}, peers.zarr_reader, common)
    rows += _zarr_rows("zarr-python", {"slices together": Path(str(store.path))}, peers.zarr_together, common)
    return _assert_fastest(rows, 400)


def megatron(settings: Settings, corpus: Corpus, store: TokenStore) -> list[Row]:
    """Tokens, labels, loss mask and position ids of each sample."""
    import torch

    torch.set_num_threads(1)
    prefix = formats.megatron_prefix(settings, corpus)
    dataset = peers.megatron_dataset(prefix, settings.folder / f"megatron-cache-{settings.tokens}")
    batches = random_batches(len(dataset))

    def read(numbers: NDArray[np.int64]) -> list[dict[str, Any]]:
        return [dataset[number] for number in numbers.tolist()]

    for batch in batches[:: max(1, len(batches) // 16)]:
        expected = peers.megatron_samples(dataset, batch)
        for sample, tokens in zip(read(batch), expected, strict=True):
            assert (sample["tokens"].numpy() == tokens[:-1]).all()
            assert (sample["labels"].numpy() == tokens[1:]).all()
    return [_row("Megatron GPTDataset, all fields", settings, store, _fields(store), by_number(read, batches), 25)]


def _fields(store: TokenStore) -> Read:
    """What GPTDataset gives, for a whole batch: int64 tokens, labels, position ids, float loss mask of its own."""
    import torch

    ones = torch.ones(BATCH, LENGTH)
    positions = torch.arange(LENGTH).expand(BATCH, -1)
    read_tensor = ours_torch(store)

    def read(numbers: NDArray[np.int64]) -> dict[str, Any]:
        both = read_tensor(numbers)
        tokens, labels = both[:, :-1].contiguous(), both[:, 1:].contiguous()
        return {"tokens": tokens, "labels": labels, "loss_mask": ones.clone(), "position_ids": positions}

    return read


def _zarr_rows(
    name: str, folders: dict[str, Path], make: Callable[[Path], Read], common: tuple[Settings, Corpus, TokenStore]
) -> list[Row]:
    settings, corpus, store = common
    batches = random_batches((len(corpus.tokens) - 1) // LENGTH)
    rows = []
    for what, folder in folders.items():
        read = make(folder)
        check(read, corpus.tokens, batches[: max(1, len(batches) // 8)])
        rows.append(_row(f"{name}: {what}", settings, store, ours(store), by_number(read, batches)))
    return rows


def _row(
    what: str, settings: Settings, store: TokenStore, mine: Read, theirs: Work, wanted: float | None = None
) -> Row:
    """Both warmed, the peer for so long that its caches fill, then timed in turns."""
    work = by_number(mine, random_batches((store.num_tokens - 1) // LENGTH))
    work(settings.seconds * 2)
    theirs(settings.seconds * 20)
    return Row(what, alternate(work, theirs, settings.seconds, settings.rounds), wanted)


def _assert_fastest(rows: list[Row], wanted: float) -> list[Row]:
    """The figure is held against the peer's fastest way."""
    fastest = min(rows, key=lambda row: row.result.cpu_ratio if row.result else 0)
    return [Row(row.what, row.result, wanted if row is fastest else None) for row in rows]


def _check_iterator(batches: Iterator[Any], corpus: Corpus) -> None:
    """Raises AssertionError unless every sample of some batches is one of the corpus's."""
    count = len(corpus.tokens) // WIDTH
    known = {hash(sample.tobytes()) for sample in corpus.tokens[: count * WIDTH].reshape(count, WIDTH)}
    for _, batch in zip(range(16), batches, strict=False):
        for sample in np.asarray(batch):
            assert hash(sample.tobytes()) in known, "a sample is not one of the corpus's"


_PEERS: dict[str, Table] = {
    "litdata": litdata,
    "MosaicML streaming": mosaic,
    "tensorstore": tensorstore,
    "Megatron": megatron,
    "zarr-python": zarr,
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        _child(sys.argv[2], sys.argv[3], parse(sys.argv[4:]))
    start(measure)
