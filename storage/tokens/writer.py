"""Writes the arrays of a token store in bounded memory: one shard at a time, and the index of documents."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .framing import Framing, ShardShape
from .index_writer import IndexWriter
from .shard_writer import ShardWriter
from .shards import ShardSummary, Tokens, summarise
from .store import DOCUMENTS


def write_shard(folder: Path, number: int, shape: ShardShape, blocks: Iterable[Tokens]) -> ShardSummary:
    """Write shard `number` of the store in `folder` from consecutive blocks of its tokens, and publish it by rename.

    Blocks (1-D, the store's dtype) have any length; all together at most shard_tokens, and at least one.
    """
    file = f"c/{number}"
    writer, framing = ShardWriter(folder / file, shape.shard_tokens // shape.chunk_tokens), Framing(shape)
    try:
        framing.write(blocks, writer)
        size, digest = writer.publish()
    finally:
        writer.close()
    return ShardSummary(file, int(framing.counts.sum()), size, digest, summarise(framing.counts))


class DocumentWriter:
    """Writes the document index: the place of each document's first token."""

    def __init__(self, folder: Path, skip: int = 0) -> None:
        """`skip` shards of it are there already, and are not written."""
        self._index = IndexWriter(folder / DOCUMENTS, skip)

    @property
    def documents(self) -> int:
        """How many there are so far."""
        return self._index.length

    @property
    def files(self) -> list[str]:
        """What was written, by path in the store."""
        return [f"{DOCUMENTS}/{name}" for name in self._index.files]

    def append(self, starts: NDArray[np.uint64]) -> None:
        """Add the next documents' first tokens, uint64."""
        self._index.append(starts)

    def finish(self) -> None:
        """Write what is left."""
        self._index.finish()
