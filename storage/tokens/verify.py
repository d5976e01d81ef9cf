"""Checks a token store to the last byte. Each check raises FoundBad with the file at fault."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...config.errors import FoundBad
from .growing import finish_append
from .inventory import Inventory, read_inventory
from .locations import Location, check_sizes, file_digest
from .reader import TokenStore, open_store
from .shards import REMEDY, ShardSummary, summarise
from .store import LOSS_MASK, METADATA, TOKENIZER, StoreInfo, read_info
from .tokenizer import open_tokenizer

Progress = Callable[[int, int], None]
"""Called with the bytes checked and the bytes in all."""
_SPAN_CHUNKS = 64  # read at a time, so that an object store is asked for a few MiB at once


def verify_store(path: Location, progress: Progress) -> StoreInfo:
    """Check crc32c of every chunk, digests, histograms, token ids, the document index and the tokenizer.

    Raises UserError if there is no store there, FoundBad naming the first file that is bad.
    """
    _finish_append(path)
    store = open_store(path)
    inventory = check_presence(store)
    _check_mask(store)  # first: it says in which chunk a shard of the mask is bad
    _check_files(store, inventory)
    done = 0
    for number, shard in enumerate(inventory.shards):
        _check_shard(store, number, shard)
        done += shard.size_bytes
        progress(done, store.info.size_bytes)
    _check_documents(store)
    check_tokenizer(store)
    progress(store.info.size_bytes, store.info.size_bytes)
    return store.info


def check_presence(store: TokenStore) -> Inventory:
    """Check that every file is there and as long as it should be; nothing but inventory.json is read.

    Raises FoundBad naming the first file that is missing or has another size.
    """
    if store.info.pending:
        remedy = f"`trainwright data verify {store.path}` does the rest"
        if not isinstance(store.path, Path):
            remedy = "finish it where it was built, and copy the store again"
        raise FoundBad(str(store.path / METADATA), "an append was stopped while it replaced files", remedy)
    inventory = read_inventory(store.path, read_info(store.path))  # of all there is, whatever generation is read
    check_sizes(store.path, {name: size for name, (size, _) in inventory.expected.items()})
    return inventory


def _finish_append(path: Location) -> None:
    if not isinstance(path, Path):
        return  # check_presence says so: what is there belongs to whoever copied it
    try:
        finish_append(path)
    except OSError as error:
        problem = f"an append was stopped while it replaced files, and the rest cannot be done ({error.strerror})"
        raise FoundBad(str(path / METADATA), problem, "verify it where it can be written") from None


def _check_files(store: TokenStore, inventory: Inventory) -> None:
    for name, expected in inventory.files.items():
        file = store.path / name
        if file_digest(file)[1] != expected["digest"]:
            raise FoundBad(str(file), "its digest is not the recorded one", REMEDY)


def _check_mask(store: TokenStore) -> None:
    """Every chunk's crc32c, that nothing but 0 and 1 is there, and how many are 1."""
    if store.loss_mask is None:
        return
    info, trained = store.info, 0
    span = _SPAN_CHUNKS * info.chunk_tokens
    for start in range(0, info.tokens, span):
        values = store.loss_mask.read(start, min(start + span, info.tokens))
        if int(values.max()) > 1:
            file = store.path / LOSS_MASK / "c" / str((start + int(values.argmax())) // info.shard_tokens)
            raise FoundBad(str(file), f"value {int(values.max())} is neither 0 nor 1", REMEDY)
        trained += int(values.sum())
    if trained != info.trained_tokens:
        problem = f"{trained} tokens are trained, not {info.trained_tokens} as zarr.json says"
        raise FoundBad(str(store.path / LOSS_MASK), problem, REMEDY)


def _check_shard(store: TokenStore, number: int, shard: ShardSummary) -> None:
    info = store.info
    file = store.path / shard.file
    counts = np.zeros(info.vocab_size, np.int64)
    first, span = number * info.shard_tokens, _SPAN_CHUNKS * info.chunk_tokens
    for start in range(first, first + shard.tokens, span):
        tokens = store.read(start, min(start + span, first + shard.tokens))
        if int(tokens.max()) >= info.vocab_size:
            problem = f"token id {int(tokens.max())} is not below the vocabulary's {info.vocab_size}"
            raise FoundBad(str(file), problem, REMEDY)
        counts += np.bincount(tokens, minlength=info.vocab_size)
    if summarise(counts) != shard.histogram:
        raise FoundBad(str(file), "its tokens do not have the recorded histogram", REMEDY)
    if file_digest(file)[1] != shard.digest:
        raise FoundBad(str(file), "its digest is not the recorded one", REMEDY)


def _check_documents(store: TokenStore) -> None:
    """Offsets begin at 0, ascend, stay inside, and each follows an end-of-document token, as does the store's end."""
    index, before = store.document_index, -1
    for number in range(index.num_chunks):
        starts = index.chunk(number).astype(np.int64)
        steps = np.diff(starts, prepend=before)
        if (steps < 1).any() or int(starts[-1]) >= store.num_tokens or (before < 0 and int(starts[0]) != 0):
            raise FoundBad(str(index.file(number)), "document offsets are not ascending from 0 to the end", REMEDY)
        _check_ends(store, np.append(starts, store.num_tokens) if number == index.num_chunks - 1 else starts, number)
        before = int(starts[-1])


def _check_ends(store: TokenStore, starts: np.ndarray[tuple[int], np.dtype[np.int64]], number: int) -> None:
    length, end = _SPAN_CHUNKS * store.info.chunk_tokens, store.info.end_of_document
    ends = starts[starts > 0] - 1
    spans = ends // length
    for span in np.unique(spans).tolist():
        places = ends[spans == span] - span * length
        if (store.read(span * length, min((span + 1) * length, store.num_tokens))[places] != end).any():
            problem = f"a document does not end with token {end}"
            raise FoundBad(str(store.document_index.file(number)), problem, REMEDY)


def check_tokenizer(store: TokenStore) -> None:
    """Raises FoundBad unless the store's tokenizer is the one that it was built with."""
    file = store.path / TOKENIZER / "tokenizer.json"
    if open_tokenizer(store.path).fingerprint() != store.info.tokenizer_fingerprint:
        raise FoundBad(str(file), "it is not the tokenizer that the store was built with", REMEDY)
