"""Writes the arrays of a token store in bounded memory: one shard at a time, and the index of documents."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..durable import write_durably
from .framing import Framing, ShardShape
from .shard_writer import ShardWriter
from .shards import ShardSummary, Tokens, crc32c, fill_value, summarise
from .store import DOCUMENTS, METADATA, write_index_info

DOCUMENT_CHUNK = 1 << 20


def write_shard(folder: Path, number: int, shape: ShardShape, blocks: Iterable[Tokens]) -> ShardSummary:
    """Write shard `number` of the store in `folder` from consecutive blocks of its tokens, and publish it by rename.

    Blocks (1-D, the store's dtype) have any length; all together at most shard_tokens, and at least one.
    """
    file = f"c/{number}"
    writer, framing = ShardWriter(folder / file, shape.shard_tokens // shape.chunk_tokens), Framing(shape)
    try:
        for data, sizes in framing.pieces(blocks):
            writer.append(data, sizes)
        size, digest = writer.publish()
    finally:
        writer.close()
    return ShardSummary(file, int(framing.counts.sum()), size, digest, summarise(framing.counts))


class DocumentWriter:
    """Writes the document index: the place of each document's first token, as a Zarr array of uint64."""

    def __init__(self, folder: Path, skip: int = 0) -> None:
        """`skip` chunk files of DOCUMENT_CHUNK offsets are there already, and are not written."""
        self.documents = skip * DOCUMENT_CHUNK
        self.files: list[str] = []
        self._folder, self._next = folder / DOCUMENTS, skip
        (self._folder / "c").mkdir(parents=True, exist_ok=True)
        self._starts: NDArray[np.uint64] = np.empty(0, np.uint64)

    def append(self, starts: NDArray[np.uint64]) -> None:
        """Add the next documents' first tokens, uint64."""
        self._starts = np.concatenate([self._starts, starts])
        self.documents += len(starts)
        while len(self._starts) >= DOCUMENT_CHUNK:
            self._write(DOCUMENT_CHUNK)

    def finish(self) -> int:
        """Write what is left and the array's zarr.json; offsets per chunk file. A short index has one short chunk."""
        chunk = min(self.documents, DOCUMENT_CHUNK)
        if len(self._starts):
            self._write(chunk)
        write_index_info(self._folder, self.documents, chunk)
        self.files.append(f"{DOCUMENTS}/{METADATA}")
        return chunk

    def _write(self, chunk: int) -> None:
        starts: NDArray[np.uint64] = np.full(chunk, fill_value(np.dtype(np.uint64)), "<u8")
        now, self._starts = self._starts[:chunk], self._starts[chunk:]
        starts[: len(now)] = now
        data = starts.tobytes()
        name = f"{DOCUMENTS}/c/{self._next}"
        self._next += 1
        write_durably(self._folder.parent / name, data + crc32c(data))
        self.files.append(name)
