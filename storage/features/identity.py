"""What a document is called: a hash of its tokens, the same wherever and however often its store is built."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config.errors import UserError
from ..durable import sync
from ..tokens.reader import TokenStore, open_store
from ..tokens.tokenizer import StoreTokenizer

ID_BYTES = 16
Ids = NDArray[np.void]
"""Document ids, each of 16 bytes (dtype V16)."""
Progress = Callable[[int, int], None]
"""Called with the bytes of tokens read and the bytes in all."""
_BLOCK_TOKENS = 1 << 20


def document_id(tokens: Sequence[int] | NDArray[np.integer[Any]], fingerprint: str) -> bytes:
    """Id of a document, 16 bytes, by its token ids without the end-of-document token.

    BLAKE2b of the ids as little-endian uint32, personalised with the first 16 bytes of the tokenizer's fingerprint,
    so that the same ids of another tokenizer are another document.
    """
    hasher = _hasher(fingerprint)
    hasher.update(np.ascontiguousarray(tokens, "<u4").data)
    return hasher.digest()


def text_ids(texts: Sequence[str], tokenizer: StoreTokenizer, fingerprint: str) -> list[bytes]:
    """Ids of the documents that `data build` would make of these texts."""
    return [document_id(ids, fingerprint) for ids in tokenizer.encode(texts)]


def store_ids(store: TokenStore, progress: Progress = lambda done, total: None) -> Ids:
    """Id of each document of a store, V16 [documents]. Raises FoundBad naming the file if it is damaged."""
    starts = document_starts(store)
    ids = bytearray()
    total = store.num_tokens * store.info.numpy_dtype.itemsize
    for first, last in _groups(starts):
        ids += _group_ids(store, starts[first : last + 1])
        progress(int(starts[last]) * store.info.numpy_dtype.itemsize, total)
    return np.frombuffer(bytes(ids), f"V{ID_BYTES}")


def write_ids(path: Path, file: Path, progress: Progress = lambda done, total: None) -> int:
    """Write a CSV of all documents of a store, in order: number, document, tokens; how many there are.

    Written beside its place and renamed. Raises UserError if `file` exists, OSError with its name if the disk refuses.
    """
    if os.path.lexists(file):
        raise UserError(f"FILE {file}", "exists already", "give another name, or remove it first")
    if not file.parent.is_dir():
        raise UserError(f"FILE {file}", f"{file.parent} is not a folder", "give a file in a folder that exists")
    store = open_store(path)
    beside = file.with_name(f".{file.name}.tmp")
    try:
        ids, lengths = store_ids(store, progress), np.diff(document_starts(store)).tolist()
        with beside.open("w", encoding="ascii") as output:
            output.write("number,document,tokens\n")
            for number, (document, length) in enumerate(zip(ids, lengths, strict=True)):
                output.write(f"{number},{document.tobytes().hex()},{length}\n")
        sync(beside)
        os.rename(beside, file)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(file)
        raise
    finally:
        store.close()
    sync(file.parent)
    return len(ids)


def document_starts(store: TokenStore) -> NDArray[np.int64]:
    """First tokens of all documents and the end of the last, int64 [documents + 1]."""
    index = store.document_index
    parts = [index.chunk(number).astype(np.int64) for number in range(index.num_chunks)]
    return np.concatenate([*parts, np.array([store.num_tokens], np.int64)])


def parse_id(text: str, where: str = "DOCUMENT") -> bytes:
    """An id from its 32 hexadecimal digits. Raises UserError naming `where`."""
    try:
        number = bytes.fromhex(text) if len(text) == 2 * ID_BYTES else b""
    except ValueError:
        number = b""
    if len(number) != ID_BYTES:
        remedy = "give the 32 hexadecimal digits that `trainwright data features ids` writes"
        raise UserError(where, f"{text[:80]!r} is no document id", remedy)
    return number


def _groups(starts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of documents of about a million tokens each, and longer documents alone."""
    first, documents = 0, len(starts) - 1
    while first < documents:
        last = int(np.searchsorted(starts, starts[first] + _BLOCK_TOKENS, "right")) - 1
        last = min(max(last, first + 1), documents)
        yield first, last
        first = last


def _group_ids(store: TokenStore, starts: NDArray[np.int64]) -> bytes:
    """Ids of neighbouring documents, one after another; `starts` has the end of the last too."""
    fingerprint, base, end = store.info.tokenizer_fingerprint, int(starts[0]), int(starts[-1])
    if len(starts) == 2:
        hasher = _hasher(fingerprint)
        for place in range(base, end - 1, _BLOCK_TOKENS):
            hasher.update(store.read(place, min(place + _BLOCK_TOKENS, end - 1)).astype("<u4").data)
        return hasher.digest()
    data = store.read(base, end).astype("<u4").data.cast("B")
    places = ((starts - base) * 4).tolist()
    ids = bytearray()
    for start, stop in pairwise(places):
        hasher = _hasher(fingerprint)
        hasher.update(data[start : stop - 4])
        ids += hasher.digest()
    return bytes(ids)


def _hasher(fingerprint: str) -> "hashlib.blake2b":
    return hashlib.blake2b(digest_size=ID_BYTES, person=bytes.fromhex(fingerprint)[:16])
