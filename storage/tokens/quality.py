"""What histograms tell of a store in a millisecond: floods of one token, ids that were cut, shards of another kind."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .inventory import Inventory, read_inventory
from .reader import TokenStore
from .shards import SKETCH_BUCKETS, ShardSummary
from .tokenizer import open_tokenizer

Shares = NDArray[np.float64]
_SIXTEEN_BITS = 1 << 16
_FEW_TOKENS = 1 << 20  # of fewer, a store says little about ids that it does not have
_FEW_IN_A_SHARD = 16 * SKETCH_BUCKETS  # of fewer, a shard is a document or two, and those are of one kind


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What was found. Shares are of all tokens, from 0 to 1."""

    unknown: float | None
    """At most this share is the tokenizer's unknown token, in the worst shard; None if it has none."""
    unknown_shard: str | None
    flood: float
    """Share of the commonest token that does not end documents, in the worst shard."""
    flood_token: int
    flood_shard: str
    cut_ids: bool
    """The vocabulary needs more than 16 bits, and no id of all those tokens does."""
    drift: float
    """Largest Jensen-Shannon divergence, in bits from 0 to 1, of a shard from the store, beyond what chance gives."""
    drift_shard: str


def quality_of(store: TokenStore) -> Quality:
    """Judge a store by its inventory. Raises FoundBad if that is damaged."""
    inventory = read_inventory(store.path, store.info)
    unknown_id = open_tokenizer(store.path).unknown
    unknown = max(((_at_most(shard, unknown_id), shard.file) for shard in inventory.shards), default=(0.0, ""))
    end = store.info.end_of_document
    floods = [(*_commonest(shard, end), shard.file) for shard in inventory.shards]
    flood, token, flood_shard = max(floods)
    whole = sketch_of(inventory)
    drifts = [(_beyond_chance(shard, whole), shard.file) for shard in inventory.shards]
    highest = max(int(shard.histogram["max"]) for shard in inventory.shards)
    enough = store.info.tokens >= _FEW_TOKENS
    return Quality(
        unknown=None if unknown_id is None else unknown[0],
        unknown_shard=None if unknown_id is None else unknown[1],
        flood=flood,
        flood_token=token,
        flood_shard=flood_shard,
        cut_ids=enough and store.info.vocab_size > _SIXTEEN_BITS > highest,
        drift=max(drifts)[0],
        drift_shard=max(drifts)[1],
    )


def sketch_of(inventory: Inventory) -> Shares:
    """Shares of a store's tokens by id modulo 64, float64 [64]."""
    counts = np.sum([shard.histogram["sketch"] for shard in inventory.shards], axis=0, dtype=np.float64)
    shares: Shares = counts / counts.sum()
    return shares


def divergence(one: Shares, other: Shares) -> float:
    """Jensen-Shannon divergence of two distributions, in bits: 0 for equal ones, 1 for those that share nothing."""
    middle = (one + other) / 2
    return float(np.clip((_relative(one, middle) + _relative(other, middle)) / 2, 0, 1))


def _beyond_chance(shard: ShardSummary, whole: Shares) -> float:
    """Divergence of a shard less what n tokens drawn from the whole are expected to have: (k - 1) / (8 n ln 2) bits.

    That is chi-squared's mean, k - 1 for k buckets, in the divergence's expansion around equal distributions (sum of
    (p - q)^2 / 8 q nats). Without it the shortest shard, often the last, would always be the worst. It holds for words
    drawn one by one; a shard of a document or two is another thing, and not judged.
    """
    if shard.tokens < _FEW_IN_A_SHARD:
        return 0.0
    chance = (np.count_nonzero(whole) - 1) / (8 * shard.tokens * math.log(2))
    return max(0.0, divergence(_shares(shard), whole) - chance)


def _relative(one: Shares, middle: Shares) -> float:
    some = one > 0
    return float((one[some] * np.log2(one[some] / middle[some])).sum())


def _shares(shard: ShardSummary) -> Shares:
    counts = np.array(shard.histogram["sketch"], np.float64)
    shares: Shares = counts / counts.sum()
    return shares


def _at_most(shard: ShardSummary, token: int | None) -> float:
    """Share of a token in a shard; if it is none of the commonest, that of the last of these, which it is not above."""
    top = shard.histogram["top"]
    counts = dict(map(tuple, top))
    if token is None or (token not in counts and len(top) == shard.histogram["distinct"]):
        return 0.0
    return float(counts.get(token, top[-1][1]) / shard.tokens)


def _commonest(shard: ShardSummary, end: int) -> tuple[float, int]:
    for token, count in shard.histogram["top"]:
        if token != end:
            return count / shard.tokens, token
    return 0.0, end
