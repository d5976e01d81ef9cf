"""Which documents are dropped because an earlier one is the same, or nearly: decided from all parts together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .minhash import MinHasher
from .part_files import HASH, PartFile

KINDS = ("none", "exact", "near")
_BUCKET_DOCUMENTS = 1 << 24
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Dropped:
    """The decision."""

    masks: list[Mask]
    """Per part, which of its documents are dropped."""
    exact: int
    near: int


def hasher_for(options: dict[str, Any]) -> MinHasher | None:
    """What signs documents, if near duplicates are dropped."""
    return MinHasher(options["near_threshold"]) if options["deduplicate"] == "near" else None


def find_duplicates(parts: Sequence[PartFile], kind: str, threshold: float | None, num_known: int = 0) -> Dropped:
    """Decide. The first of equal documents, in the sources' order, is kept, and so is the first of a near cluster.

    The first `num_known` parts are what a store has already: dropped as a whole, since it is there, and not counted.
    Raises PartDamaged.
    """
    counts = [part.summary["documents"] for part in parts]
    drop = np.zeros(sum(counts), bool)
    if kind != "none":
        _drop_equal(parts, drop)
    known = sum(counts[:num_known])
    exact = int(drop[known:].sum())
    if kind == "near":
        assert threshold is not None
        _drop_near(parts, drop, threshold)
    near = int(drop[known:].sum()) - exact
    drop[:known] = True
    return Dropped(np.split(drop, np.cumsum(counts)[:-1]), exact, near)


def _drop_equal(parts: Sequence[PartFile], drop: Mask) -> None:
    """By hash, in buckets of hashes, so that memory is bounded."""
    buckets = max(1, -(-len(drop) // _BUCKET_DOCUMENTS))
    for bucket in range(buckets):
        hashes, places, base = [np.empty(0, HASH)], [np.empty(0, np.int64)], 0
        for part in parts:
            own = part.section("hashes")
            chosen = np.flatnonzero(own["high"] % np.uint64(buckets) == bucket)
            hashes.append(own[chosen])
            places.append(chosen + base)
            base += len(own)
        keys, numbers = np.concatenate(hashes), np.concatenate(places)
        order = np.lexsort((keys["low"], keys["high"]))  # stable: equal ones stay in the sources' order
        ordered = keys[order]
        drop[numbers[order[1:]][ordered[1:] == ordered[:-1]]] = True


def _drop_near(parts: Sequence[PartFile], drop: Mask, threshold: float) -> None:
    """By clusters: documents that share a band and whose signatures agree often enough belong together."""
    signatures = _Signatures(parts)
    clusters = _Clusters(len(drop))
    for pairs in _candidates(parts, drop):
        agree = signatures.similarity(pairs) >= threshold
        for first, second in pairs[agree].tolist():
            clusters.join(first, second)
    drop |= clusters.is_later()


def _candidates(parts: Sequence[PartFile], drop: Mask) -> Iterator[NDArray[np.int64]]:
    """Pairs (earlier, later), int64 [n, 2], of each band: every document with the first of its key and the one before.

    All pairs of a key would be too many where a key is common; these two chains join what is similar.
    """
    kept = np.flatnonzero(~drop)
    loaded = [part.section("bands") for part in parts if part.summary["documents"]]
    for band in range(loaded[0].shape[1] if loaded else 0):
        keys = np.concatenate([columns[:, band] for columns in loaded])[kept]
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        begins = np.append(True, ordered[1:] != ordered[:-1])
        first = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
        later = np.flatnonzero(~begins)
        numbers = kept[order]
        pairs = np.stack([numbers[first[later]], numbers[later]], axis=1)
        chain = np.stack([numbers[later - 1], numbers[later]], axis=1)
        yield np.unique(np.concatenate([pairs, chain]), axis=0)


class _Signatures:
    """Signatures of all documents, by number."""

    def __init__(self, parts: Sequence[PartFile]) -> None:
        used = [part for part in parts if part.summary["documents"]]
        self._parts = [part.section("signatures") for part in used]
        self._bases = np.cumsum([0, *(len(part) for part in self._parts)])

    def similarity(self, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Estimated Jaccard similarity of each pair, float64 [n]."""
        step = 1 << 14
        results = [np.empty(0)]
        for start in range(0, len(pairs), step):
            one, other = (self._of(pairs[start : start + step, side]) for side in (0, 1))
            results.append((one == other).mean(axis=1))
        return np.concatenate(results)

    def _of(self, numbers: NDArray[np.int64]) -> NDArray[np.uint32]:
        places = np.searchsorted(self._bases, numbers, "right") - 1
        result = np.empty((len(numbers), self._parts[0].shape[1]), np.uint32)
        for place in np.unique(places).tolist():
            rows = places == place
            result[rows] = self._parts[place][numbers[rows] - self._bases[place]]
        return result


class _Clusters:
    """Sets that are joined; a set is known by its smallest member."""

    def __init__(self, count: int) -> None:
        self._parent = np.arange(count)

    def join(self, one: int, other: int) -> None:
        """Put the sets of two members together."""
        low, high = sorted((self._root(one), self._root(other)))
        self._parent[high] = low

    def is_later(self) -> Mask:
        """Whether a member is not the smallest of its set."""
        mask: Mask = self._parent != np.arange(len(self._parent))
        return mask

    def _root(self, member: int) -> int:
        parent = self._parent
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = int(parent[member])
        return member
