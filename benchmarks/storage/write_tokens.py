"""Line 7: writing shards with checksums, histograms and digests, against NumPy's tofile of the same stream.

Run: make bench-storage ARGS=write_tokens
"""

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainwright.storage.tokens.framing import ShardShape
from trainwright.storage.tokens.writer import write_shard

from .corpus import Corpus, open_corpus
from .report import Row, rates
from .settings import VOCABULARY, Settings, start
from .timing import Work, alternate

_SHARD_TOKENS, _CHUNK_TOKENS = 1 << 26, 1 << 14
_BLOCK_TOKENS = 1 << 19  # what `data build` hands on at a time
_TIMES_ROUNDS = 3  # a disk that others use too is not as steady as memory
Blocks = Iterator[NDArray[np.uint16]]


def measure(settings: Settings) -> bool:
    """Print the table; whether the figure was reached."""
    corpus = open_corpus(settings)
    documents = corpus.documents()
    rows, rounds = [], settings.rounds * _TIMES_ROUNDS
    for name, folder, wanted in (("on a disk, with fsync", settings.disk, 1.0), ("in memory", settings.folder, None)):
        place, file = folder / "written", folder / "written.bin"
        remove = partial(_remove, place, file)
        ours, theirs = _ours(place, documents), _tofile(file, documents)
        remove()
        ours(0)
        theirs(0)
        _check(place, file, corpus)
        rows.append(Row(name, alternate(ours, theirs, 0, rounds, remove), wanted, "wall" if wanted else "cpu"))
        remove()
    title = (
        "7. Writing a stream of documents: shards with crc32c, BLAKE3 and histogram, against tofile of the same blocks"
    )
    return rates(title, rows)


def _remove(folder: Path, file: Path) -> None:
    """What an earlier turn wrote, to the last block: a disk is busy with that for a while."""
    shutil.rmtree(folder, ignore_errors=True)
    file.unlink(missing_ok=True)
    os.sync()


def _ours(folder: Path, documents: list[NDArray[np.uint16]]) -> Work:
    shape = ShardShape("uint16", VOCABULARY, _CHUNK_TOKENS, _SHARD_TOKENS, "none")

    def work(_: float) -> int:
        (folder / "c").mkdir(parents=True)
        written = 0
        for number, blocks in enumerate(_shards(documents)):
            written += write_shard(folder, number, shape, blocks).tokens
        return written

    return work


def _tofile(path: Path, documents: list[NDArray[np.uint16]]) -> Work:
    def work(_: float) -> int:
        written = 0
        with path.open("wb") as file:
            for block in _blocks(documents):
                block.tofile(file)
                written += len(block)
            file.flush()
            os.fsync(file.fileno())
        return written

    return work


def _blocks(documents: list[NDArray[np.uint16]]) -> Blocks:
    """Documents joined to blocks: the same work on both sides."""
    waiting: list[NDArray[np.uint16]] = []
    count = 0
    for document in documents:
        waiting.append(document)
        count += len(document)
        if count >= _BLOCK_TOKENS:
            yield np.concatenate(waiting)
            waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)


def _shards(documents: list[NDArray[np.uint16]]) -> Iterator[Blocks]:
    """The same blocks, cut where shards end; each part must be taken whole before the next."""
    blocks = _blocks(documents)
    rest = next(blocks, None)

    def shard() -> Blocks:
        nonlocal rest
        left = _SHARD_TOKENS
        while rest is not None and left:
            now, rest = rest[:left], rest[left:]
            left -= len(now)
            yield now
            if not len(rest):
                rest = next(blocks, None)

    while rest is not None:
        yield shard()


def _check(ours: Path, theirs: Path, corpus: Corpus) -> None:
    """Raises AssertionError unless both hold the corpus's tokens."""
    assert (np.fromfile(theirs, np.uint16) == corpus.tokens).all()
    stride = _CHUNK_TOKENS * 2 + 4
    for number in range(-(-len(corpus.tokens) // _SHARD_TOKENS)):
        expected = corpus.tokens[number * _SHARD_TOKENS :][:_SHARD_TOKENS]
        chunks = len(expected) // _CHUNK_TOKENS
        data = np.fromfile(ours / "c" / str(number), np.uint8, chunks * stride).reshape(chunks, stride)
        tokens = np.ascontiguousarray(data[:, :-4]).view("<u2")
        assert (tokens.reshape(-1) == expected[: chunks * _CHUNK_TOKENS]).all()


if __name__ == "__main__":
    start(measure)
