"""The loss mask of a store: a second Zarr array, uint8, 1 where a token is learnt to be predicted, else 0.

Its shards and chunks hold the same tokens as the store's, so that a chunk's number means the same in both. It is always
compressed: runs of equal values take next to no room.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .framing import ShardShape
from .shards import ShardSummary
from .store import StoreInfo
from .wanted import Numbers, Wanted

if TYPE_CHECKING:
    from .reader import Shards

Trained = NDArray[np.uint8]


def mask_info(info: StoreInfo) -> StoreInfo:
    """How the mask of a store is stored, in the words of the store's own arrays."""
    return replace(info, dtype="uint8", compression="zstd")


def mask_shape(tokens: ShardShape) -> ShardShape:
    """The shape of the mask's shards, which stand in the same chunks as the tokens' shards."""
    return replace(tokens, dtype="uint8", vocab_size=2, compression="zstd")


def trained_in(shard: ShardSummary) -> int:
    """How many tokens of a shard of the mask are trained."""
    return int(dict(map(tuple, shard.histogram["top"])).get(1, 0))


class LossMask:
    """The mask of one store, open for reading. May be shared by threads that only read."""

    def __init__(self, shards: "Shards", num_tokens: int) -> None:
        """`shards` are those of the array LOSS_MASK, opened with mask_info."""
        self._shards, self._num_tokens = shards, num_tokens

    def read(self, start: int, stop: int) -> Trained:
        """Values of tokens start..stop-1. Raises FoundBad naming shard and chunk if one is damaged."""
        if not 0 <= start <= stop <= self._num_tokens:
            raise ValueError(f"tokens {start}..{stop} are not within 0..{self._num_tokens}")
        result: Trained = np.empty(stop - start, np.uint8)
        if stop > start:
            self._shards.fill(Wanted(np.array([start]), 1), result[None])
        return result

    def will_need(self, numbers: Numbers, out: Trained, rows: Numbers) -> None:
        """Say what samples_into is soon called with, so that decoding begins."""
        self._shards.will_need(Wanted(numbers, out.shape[1] - 1, rows), out)

    def samples_into(self, numbers: Numbers, out: Trained, rows: Numbers) -> None:
        """As TokenStore.samples_into; `out` is contiguous uint8 [n, width]."""
        self._shards.fill(Wanted(numbers, out.shape[1] - 1, rows), out)

    def pieces_into(self, starts: Numbers, lengths: Numbers, places: Numbers, out: Trained) -> None:
        """As TokenStore.pieces_into; `out` is contiguous uint8 [n, width]."""
        self._shards.fill(Wanted(starts, 1, places, lengths), out)

    def close(self) -> None:
        """Give back files and threads."""
        self._shards.close()
