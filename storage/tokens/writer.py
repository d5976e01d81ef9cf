"""Writes the arrays of a token store as a stream, in bounded memory: one inner chunk and one shard index at a time."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .shards import ShardSummary, ShardWriter, Tokens, crc32c, encode_chunk, fill_value, summarise
from .store import DOCUMENTS, METADATA, dtype_for, write_documents_info, write_durably

DOCUMENT_CHUNK = 1 << 20


class TokenWriter:
    """Appends tokens to the shards c/0, c/1, ... of a store folder."""

    def __init__(self, folder: Path, vocab_size: int, chunk_tokens: int, shard_tokens: int, compression: str) -> None:
        self.tokens = 0
        self.shards: list[ShardSummary] = []
        self._folder = folder / "c"
        self._folder.mkdir()
        self._chunk_tokens, self._shard_tokens = chunk_tokens, shard_tokens
        self._compression = compression
        self._pending = np.empty(chunk_tokens, dtype_for(vocab_size))
        self._filled = 0
        self._counts = np.zeros(vocab_size, np.int64)
        self._shard: ShardWriter | None = None
        self._shard_filled = 0

    def append(self, tokens: Tokens) -> None:
        """Add tokens (1-D, the store's dtype); whole chunks and shards are written at once."""
        start = 0
        while start < len(tokens):
            part = tokens[start : start + self._chunk_tokens - self._filled]
            self._pending[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            start += len(part)
            if self._filled == self._chunk_tokens:
                self._flush_chunk()
        self.tokens += len(tokens)

    def finish(self) -> None:
        """Write what is left and publish the last shard."""
        if self._filled:
            self._flush_chunk()
        if self._shard is not None:
            self._publish()

    def close(self) -> None:
        """Close the open file, if the build was given up."""
        if self._shard is not None:
            self._shard.close()

    def _flush_chunk(self) -> None:
        if self._shard is None:
            name = str(len(self.shards))
            self._shard = ShardWriter(self._folder / name, self._shard_tokens // self._chunk_tokens)
        tokens = self._pending[: self._filled]
        self._counts += np.bincount(tokens, minlength=len(self._counts))
        self._shard.append(encode_chunk(tokens, self._chunk_tokens, self._compression))
        self._shard_filled += self._filled
        self._filled = 0
        if self._shard_filled == self._shard_tokens:
            self._publish()

    def _publish(self) -> None:
        assert self._shard is not None
        size, digest = self._shard.publish()
        file = f"c/{len(self.shards)}"
        self.shards.append(ShardSummary(file, self._shard_filled, size, digest, summarise(self._counts)))
        self._counts[:] = 0
        self._shard, self._shard_filled = None, 0


class DocumentWriter:
    """Writes the document index: the place of each document's first token, as a Zarr array of uint64."""

    def __init__(self, folder: Path) -> None:
        self.documents = 0
        self.files: list[str] = []
        self._folder = folder / DOCUMENTS
        (self._folder / "c").mkdir(parents=True)
        self._starts: list[int] = []

    def append(self, start: int) -> None:
        """Add the next document's first token."""
        self._starts.append(start)
        self.documents += 1
        if len(self._starts) == DOCUMENT_CHUNK:
            self._write(DOCUMENT_CHUNK)

    def finish(self) -> int:
        """Write what is left and the array's zarr.json; offsets per chunk file. A short index has one short chunk."""
        chunk = min(self.documents, DOCUMENT_CHUNK)
        if self._starts:
            self._write(chunk)
        write_documents_info(self._folder, self.documents, chunk)
        self.files.append(f"{DOCUMENTS}/{METADATA}")
        return chunk

    def _write(self, chunk: int) -> None:
        starts: NDArray[np.uint64] = np.full(chunk, fill_value(np.dtype(np.uint64)), "<u8")
        starts[: len(self._starts)] = self._starts
        data = starts.tobytes()
        name = f"{DOCUMENTS}/c/{len(self.files)}"
        write_durably(self._folder.parent / name, data + crc32c(data))
        self.files.append(name)
        self._starts.clear()
