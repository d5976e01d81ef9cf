"""Which documents a sample came from: what `data order --explain` says."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..tokens.reader import TokenStore
from ..tokens.tokenizer import StoreTokenizer, open_tokenizer

_EXCERPT_TOKENS = 24


@dataclass(frozen=True)
class Part:
    """Part of a document in a sample; tokens are counted from the document's first, both ends included."""

    document: int
    first: int
    last: int
    start: int
    """Where the part begins in the store."""
    text: str
    """Its beginning, at most 24 tokens, as it stands in the store."""
    fill_in_the_middle: str | None = None
    """How it was cut, if its middle was moved to its end."""


@dataclass(frozen=True)
class Place:
    """Where a sample stands: its position in the order, and what the order says of it."""

    position: int
    stage: int
    """Of data.stages, from 0; 0 without stages."""
    source: str
    """Name of its store in the run file."""
    epoch: int
    """How many times the whole store was read before, from 0."""


@dataclass(frozen=True)
class Origin(Place):
    """A sample: its place, its store, its number there, and its documents in their order."""

    store: str
    sample: int
    documents: tuple[Part, ...]

    def record(self) -> dict[str, Any]:
        """For --json."""
        record = asdict(self)
        for part in record["documents"]:
            if part["fill_in_the_middle"] is None:
                del part["fill_in_the_middle"]
        return record


def origin_of(store: TokenStore, place: Place, sample: int, ranges: Iterable[tuple[int, int]]) -> Origin:
    """Look up the documents of a sample's tokens, given as ranges. Raises FoundBad if the store is damaged."""
    tokenizer = open_tokenizer(store.path)
    parts = [part for start, stop in ranges for part in _parts(store, tokenizer, start, stop)]
    return Origin(**vars(place), store=str(store.path), sample=sample, documents=tuple(parts))


def with_moves(origin: Origin, moves: dict[int, str]) -> Origin:
    """Say which documents were changed: `moves` has the first column of each in the sample, and what was done."""
    parts, column = [], 0
    for part in origin.documents:
        parts.append(replace(part, fill_in_the_middle=moves.get(column)))
        column += part.last - part.first + 1
    return replace(origin, documents=tuple(parts))


def _parts(store: TokenStore, tokenizer: StoreTokenizer, start: int, stop: int) -> Iterator[Part]:
    index = store.document_index
    document = index.document_at(start)
    begins = [index.start_of(document), *index.within(start + 1, stop).tolist()]
    for number, begin in enumerate(begins):
        end = begins[number + 1] if number + 1 < len(begins) else stop
        low = max(start, begin)
        yield Part(document + number, low - begin, end - 1 - begin, low, _excerpt(store, tokenizer, low, end))


def _excerpt(store: TokenStore, tokenizer: StoreTokenizer, start: int, stop: int) -> str:
    ids: np.ndarray[Any, Any] = store.read(start, min(stop, start + _EXCERPT_TOKENS))
    return tokenizer.decode(ids.tolist())
