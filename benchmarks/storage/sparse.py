"""Token stores of any size that take next to no room: whole and valid, but all tokens are 0 and lie in holes.

zarr.json, the document index, every shard's index and every inner chunk's crc32c are right. All full shards have the
same bytes, so they are hard links of one sparse file, in which only the index and four bytes per chunk were written.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from trainwright.storage.tokens.shards import ABSENT, CRC_BYTES, crc32c
from trainwright.storage.tokens.store import StoreInfo, write_info
from trainwright.storage.tokens.writer import DocumentWriter

from .settings import LENGTH, VOCABULARY

CHUNK_TOKENS = 1 << 14
SHARD_TOKENS = 1 << 26
MAX_DOCUMENTS = 1 << 22
_MEAN_DOCUMENT = 800
_ITEM = 2
_LINKS = 50_000  # ext4 allows 65,000 links of a file


@contextmanager
def sparse_store(
    path: Path, num_samples: int, shard_tokens: int = SHARD_TOKENS, max_documents: int = MAX_DOCUMENTS
) -> Iterator[Path]:
    """A sparse store of about so many samples of LENGTH tokens, removed at the end.

    Documents have 800 tokens, or more where that would make over `max_documents`: their index cannot be sparse.
    """
    shutil.rmtree(path, ignore_errors=True)
    num_tokens = num_samples * LENGTH + 1
    try:
        (path / "c").mkdir(parents=True)
        _write_shards(path / "c", num_tokens, shard_tokens)
        count = min(max_documents, max(1, num_tokens // _MEAN_DOCUMENT))
        documents = DocumentWriter(path)
        documents.append(np.arange(count, dtype=np.uint64) * np.uint64(num_tokens // count))
        documents.finish()
        write_info(path, _info(num_tokens, count, shard_tokens))
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _info(num_tokens: int, documents: int, shard_tokens: int) -> StoreInfo:
    return StoreInfo(
        tokens=num_tokens,
        documents=documents,
        dtype="uint16",
        vocab_size=VOCABULARY,
        tokenizer_fingerprint="0" * 64,
        end_of_document=0,
        chunk_tokens=CHUNK_TOKENS,
        shard_tokens=shard_tokens,
        compression="none",
        generation=1,
        size_bytes=num_tokens * _ITEM,
        inventory_bytes=0,
        inventory_digest="blake3:" + "0" * 64,
    )


def _write_shards(folder: Path, num_tokens: int, shard_tokens: int) -> None:
    per_shard = shard_tokens // CHUNK_TOKENS
    full, rest = divmod(num_tokens, shard_tokens)
    for number in range(full):
        if number % _LINKS == 0:
            _write_shard(folder / str(number), per_shard, per_shard)
        else:
            os.link(folder / str(number // _LINKS * _LINKS), folder / str(number))
    if rest:
        _write_shard(folder / str(full), -(-rest // CHUNK_TOKENS), per_shard)


def _write_shard(path: Path, used: int, per_shard: int) -> None:
    size = CHUNK_TOKENS * _ITEM
    stride = size + CRC_BYTES
    checksum = crc32c(bytes(size))
    index = np.full((per_shard, 2), ABSENT, "<u8")
    index[:used, 0] = np.arange(used) * stride
    index[:used, 1] = stride
    end = index.tobytes()
    with path.open("wb") as file:
        for chunk in range(used):
            os.pwrite(file.fileno(), checksum, chunk * stride + size)
        os.pwrite(file.fileno(), end + crc32c(end), used * stride)
