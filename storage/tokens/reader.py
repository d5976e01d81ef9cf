"""Reads a token store: any range of tokens, and samples of a training sequence's length, checked when first touched."""

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .compressed_shards import CompressedShards
from .documents import DocumentIndex
from .locations import Location
from .loss_mask import LossMask, mask_info
from .object_shards import ObjectShards, pool_chunks
from .objects import ObjectPath
from .shard_identity import ShardIdentity
from .shard_map import ShardMap, can_map
from .shard_reads import ShardReads
from .shards import Tokens
from .store import LOSS_MASK, TOKENIZER, StoreInfo, read_info
from .wanted import Numbers, Wanted

How = Literal["map", "plain"]
MAX_MAPPED = 16_384
"""Shards mapped at a time by all stores of a process: a quarter of the maps that Linux allows it by default."""
_INDEX_SHARE = 8
"""Of the index of documents one shard may be mapped for so many of the store's."""
_MAX_DECODED = 64
_MASK_DECODED = 2048  # chunks of the loss mask, of 16 KiB


class Shards(Protocol):
    """What ways of reading shards have in common; ShardMap tells what each does."""

    def fill(self, wanted: Wanted, out: NDArray[Any]) -> None:
        """Copy tokens into `out`."""

    def peek(self, wanted: Wanted, out: NDArray[Any]) -> None:
        """As fill, but need not look at checksums."""

    def will_need(self, wanted: Wanted, out: NDArray[Any]) -> None:
        """Say what is read soon."""

    def close(self) -> None:
        """Give back files, maps and threads."""


class TokenStore:
    """One token store, open for reading. May be shared by threads that only read."""

    def __init__(self, path: Location, shards: Shards, info: StoreInfo, max_mapped: int = 0) -> None:
        """See open_store; at most `max_mapped` shards of the index are mapped, or they are read plainly if it is 0."""
        self.path, self.info, self._shards = path, info, shards
        self.document_index = DocumentIndex(path, info, max_mapped)
        self._identity = ShardIdentity(path, info, self.document_index, shards.fill, shards.peek)
        self.loss_mask: LossMask | None = None
        """Which tokens are learnt to be predicted; None: all are."""

    @property
    def num_tokens(self) -> int:
        return self.info.tokens

    @property
    def tokenizer_folder(self) -> Location:
        return self.path / TOKENIZER

    def read(self, start: int, stop: int) -> Tokens:
        """Tokens start..stop-1 in the store's dtype. Raises FoundBad naming shard and chunk if one is damaged."""
        if not 0 <= start <= stop <= self.num_tokens:
            raise ValueError(f"tokens {start}..{stop} are not within 0..{self.num_tokens}")
        result: Tokens = np.empty(stop - start, self.info.numpy_dtype)
        if stop > start:
            self._shards.fill(Wanted(np.array([start]), 1), result[None])
        return result

    def samples(self, numbers: Numbers, length: int) -> NDArray[np.int64]:
        """Samples of length+1 tokens, int64 [len(numbers), length+1]; sample i begins at token i*length."""
        result = np.empty((len(numbers), length + 1), np.int64)
        self.samples_into(numbers, result)
        return result

    def samples_into(self, numbers: Numbers, out: NDArray[Any], rows: Numbers | None = None) -> None:
        """Samples of out.shape[1] tokens to rows of `out` (0, 1, ... if not given); sample i begins at i*(width-1).

        `out` [n, width] is contiguous and int64, uint32 or of the store's dtype. Raises FoundBad as `read` does,
        ValueError if a sample is not within the store; FoundBad too if a shard's file is another shard's.
        """
        if not self._identity.all_known:
            self._identity.check(numbers * (out.shape[1] - 1), out.shape[1])
        self._shards.fill(Wanted(numbers, out.shape[1] - 1, rows), out)

    def will_need(self, numbers: Numbers, out: NDArray[Any], rows: Numbers | None = None) -> None:
        """Say what samples_into is soon called with, so that the system or decoding threads begin."""
        self._shards.will_need(Wanted(numbers, out.shape[1] - 1, rows), out)

    def pieces_into(self, starts: Numbers, lengths: Numbers, places: Numbers, out: NDArray[Any]) -> None:
        """lengths[i] tokens from starts[i] on, to place places[i] of `out` taken as flat; else as samples_into."""
        wanted = Wanted(starts, 1, places, lengths)
        self._shards.will_need(wanted, out)
        self._identity.check(starts, lengths)
        self._shards.fill(wanted, out)

    def starts(self, numbers: Numbers, length: int) -> NDArray[np.bool_]:
        """Where documents begin in these samples, bool [len(numbers), length+1]."""
        return self.document_index.marks(numbers * length, length + 1)

    def close(self) -> None:
        """Give back files, maps and threads."""
        self._shards.close()
        self.document_index.close()
        if self.loss_mask is not None:
            self.loss_mask.close()


def open_store(
    path: Location,
    *,
    generation: int | None = None,
    how: How = "map",
    max_mapped: int = MAX_MAPPED,
    max_decoded: int = _MAX_DECODED,
    check: bool = True,
    info: StoreInfo | None = None,
) -> TokenStore:
    """Open a token store; it takes as long for many shards as for few, since each is checked when it is first touched.

    The newest generation, or an earlier one. `how` plain shards are read; where nothing could be compiled, always
    plainly, and objects in ranges. Without `check` no chunk's crc32c is looked at. `info`: read_info(path), if known.
    Raises UserError if there is no store there or no such generation, FoundBad naming zarr.json if it is damaged.
    """
    info = info or read_info(path)
    if generation is not None:
        info = info.at_generation(generation)
    how, limits = how if can_map() else "plain", (max_mapped, max_decoded)
    index_mapped = max(1, max_mapped // _INDEX_SHARE) if how == "map" else 0
    store = TokenStore(path, _shards(path, info, how, limits, check), info, index_mapped)
    if info.trained_tokens is not None:
        limits = max_mapped, max(max_decoded, _MASK_DECODED)
        store.loss_mask = LossMask(_shards(path / LOSS_MASK, mask_info(info), how, limits, check), info.tokens)
    return store


def _shards(path: Location, info: StoreInfo, how: How, limits: tuple[int, int], check: bool) -> Shards:
    if isinstance(path, ObjectPath):
        return ObjectShards(path, info.geometry, info.compression, pool_chunks(info.geometry, limits[1]), check)
    if info.compression != "none":
        return CompressedShards(path, info, limits[1], check)
    if how == "plain":
        return ShardReads(path, info.geometry, check=check)
    return ShardMap(path, info.geometry, limits[0], check)
