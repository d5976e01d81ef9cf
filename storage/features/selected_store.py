"""A token store of the documents that a selection takes, each copied as it is, as often as its weight says."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config.errors import UserError
from ..durable import sync, write_durably
from ..tokens.framing import ShardShape
from ..tokens.inventory import read_inventory, take_inventory, write_inventory
from ..tokens.loss_mask import mask_info, trained_in
from ..tokens.reader import TokenStore, open_store
from ..tokens.shards import ShardSummary
from ..tokens.store import LOSS_MASK, METADATA, TOKENIZER, StoreInfo, write_info, write_mask_info
from ..tokens.writer import DocumentWriter, write_shard
from .copying import folder_beside
from .identity import Ids, document_starts, store_ids
from .selection import Selection, Weights

SELECTION = "selection.npz"
_BLOCK_TOKENS = 1 << 20
_CHANCE = b"trainwright copy"

Read = Callable[[int, int], NDArray[Any]]
Progress = Callable[[str, int, int], None]
"""Called with the stage, what is done and how much there is: "read" counts bytes, "write" shards."""


def copies_of(ids: Ids, weights: Weights) -> NDArray[np.int64]:
    """How often each document stands in a store, int64 [documents]: its weight, a fraction by chance.

    The chance is a BLAKE2b of the document's id: the same on any machine and at any time, and a document that is in
    with a small weight is in with every larger one.
    """
    whole = np.floor(weights).astype(np.int64)
    for number in np.flatnonzero(weights > whole).tolist():
        drawn = hashlib.blake2b(ids[number].tobytes(), digest_size=8, person=_CHANCE).digest()
        whole[number] += int.from_bytes(drawn, "little") < int((weights[number] - whole[number]) * 2.0**64)
    return whole


def write_selected_store(path: Path, selection: Selection, target: Path, progress: Progress) -> StoreInfo:
    """Write the store `target` of the documents of the store `path` that the selection takes; it holds the selection.

    First every document that stands there at all, in the store's order, then those that stand there twice, and so on.
    Raises UserError if `target` exists or no document is left, FoundBad naming a damaged file; then nothing is left.
    """
    store = open_store(path)
    try:
        with folder_beside(target, f"STORE {target}") as folder:
            ids = store_ids(store, lambda done, total: progress("read", done, total))
            if hashlib.sha256(ids.tobytes()).hexdigest() != selection.record["store"]["documents_sha256"]:
                raise UserError(str(path), "not the store that was selected from", "give that one, or select again")
            passes = _passes(copies_of(ids, selection.weights))
            shards, documents = _write_arrays(store, passes, folder, progress)
            mask = _write_mask(store, passes, folder, sum(shard.tokens for shard in shards))
            return _write_rest(store, selection, folder, (shards, documents, *mask))
    finally:
        store.close()


def _passes(copies: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Documents that stand there at all, then those that stand there twice, and so on."""
    return [np.flatnonzero(copies > number) for number in range(int(copies.max()))]


def _write_arrays(
    store: TokenStore, passes: list[NDArray[np.int64]], folder: Path, progress: Progress
) -> tuple[list[ShardSummary], DocumentWriter]:
    if not passes:
        raise UserError("--weights", "leave no whole copy of any document", "give larger weights")
    info, starts, documents, total = store.info, document_starts(store), DocumentWriter(folder), 0
    lengths = np.diff(starts)
    for numbers in passes:
        ends = total + np.cumsum(lengths[numbers])
        documents.append((ends - lengths[numbers]).astype(np.uint64))
        total = int(ends[-1])
    shape = ShardShape(info.dtype, info.vocab_size, info.chunk_tokens, info.shard_tokens, info.compression)
    stream, num_shards = _Stream(_blocks(store.read, starts, passes)), -(-total // shape.shard_tokens)
    shards: list[ShardSummary] = []
    (folder / "c").mkdir()
    for number in range(num_shards):
        shards.append(write_shard(folder, number, shape, stream.take(shape.shard_tokens)))
        progress("write", number + 1, num_shards)
    return shards, documents


def _write_mask(
    store: TokenStore, passes: list[NDArray[np.int64]], folder: Path, tokens: int
) -> tuple[int | None, list[str]]:
    """The loss mask, if the store has one: how many tokens are trained, and its files."""
    if store.loss_mask is None:
        return None, []
    info = mask_info(replace(store.info, tokens=tokens))
    shape = ShardShape(info.dtype, 2, info.chunk_tokens, info.shard_tokens, info.compression)
    stream, place, trained = (
        _Stream(_blocks(store.loss_mask.read, document_starts(store), passes)),
        folder / LOSS_MASK,
        0,
    )
    (place / "c").mkdir(parents=True)
    for number in range(info.num_shards):
        summary = write_shard(place, number, shape, stream.take(shape.shard_tokens))
        trained += trained_in(summary)
    write_mask_info(place, info)
    sync(place / "c")
    sync(place)
    return trained, [f"{LOSS_MASK}/{METADATA}", *(f"{LOSS_MASK}/c/{number}" for number in range(info.num_shards))]


def _write_rest(
    store: TokenStore,
    selection: Selection,
    folder: Path,
    written: tuple[list[ShardSummary], DocumentWriter, int | None, list[str]],
) -> StoreInfo:
    """The tokenizer, the selection, the inventory, and zarr.json last."""
    shards, documents, trained_tokens, masks = written
    documents.finish()
    (folder / TOKENIZER).mkdir()
    source = read_inventory(store.path, store.info)
    names = sorted(name for name in source.files if name.startswith(f"{TOKENIZER}/"))
    for name in names:
        write_durably(folder / name, (store.path / name).read_bytes())
    write_durably(folder / SELECTION, selection.to_bytes())
    inventory = take_inventory(folder, tuple(shards), [*names, SELECTION, *documents.files, *masks])
    inventory_bytes, inventory_digest = write_inventory(folder, inventory)
    # Its own first generation: not those of the source, and duplicates were dropped there, not here.
    info = replace(
        store.info,
        deduplication=None,
        trained_tokens=trained_tokens,
        earlier=(),
        pending=False,
        tokens=sum(shard.tokens for shard in shards),
        documents=documents.documents,
        generation=1,
        size_bytes=inventory.size_bytes,
        inventory_bytes=inventory_bytes,
        inventory_digest=inventory_digest,
    )
    write_info(folder, info)
    for place in (folder / TOKENIZER, folder / "c", folder / "documents" / "c", folder / "documents", folder):
        sync(place)
    return info


def _blocks(read: Read, starts: NDArray[np.int64], passes: list[NDArray[np.int64]]) -> Iterator[NDArray[Any]]:
    """Tokens of all passes, or what the mask says of them; neighbouring documents are read together."""
    for numbers in passes:
        breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
        firsts, lasts = numbers[np.append(0, breaks)], numbers[np.append(breaks, len(numbers)) - 1]
        for start, stop in zip(starts[firsts].tolist(), starts[lasts + 1].tolist(), strict=True):
            for place in range(start, stop, _BLOCK_TOKENS):
                yield read(place, min(place + _BLOCK_TOKENS, stop))


class _Stream:
    """Blocks of tokens, taken so many at a time."""

    def __init__(self, blocks: Iterator[NDArray[Any]]) -> None:
        self._blocks = blocks
        self._rest: NDArray[Any] | None = None

    def take(self, count: int) -> Iterator[NDArray[Any]]:
        """The next `count` tokens, fewer at the end, in blocks of any length."""
        while count:
            block = self._rest if self._rest is not None and len(self._rest) else next(self._blocks, None)
            if block is None:
                return
            part, self._rest = block[:count], block[count:]
            count -= len(part)
            yield part
