"""Which documents a sample came from: what `data order --explain` says."""

from dataclasses import asdict, dataclass
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
    text: str
    """Where the part begins, at most 24 tokens of it."""


@dataclass(frozen=True)
class Origin:
    """A sample: its position in the order, its store, its number there, its tokens start..stop-1, and its documents."""

    position: int
    store: str
    sample: int
    start: int
    stop: int
    documents: tuple[Part, ...]

    def record(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def origin_of(store: TokenStore, position: int, sample: int, length: int) -> Origin:
    """Look up the documents of a sample of `length` + 1 tokens. Raises FoundBad if the store is damaged."""
    start = sample * length
    stop = start + length + 1
    index, tokenizer = store.document_index, open_tokenizer(store.path)
    first = index.document_at(start)
    begins = [index.start_of(first), *index.within(start + 1, stop).tolist()]
    parts = []
    for number, begin in enumerate(begins):
        end = begins[number + 1] if number + 1 < len(begins) else stop
        low = max(start, begin)
        parts.append(Part(first + number, low - begin, end - 1 - begin, _excerpt(store, tokenizer, low, end)))
    return Origin(position, str(store.path), sample, start, stop, tuple(parts))


def _excerpt(store: TokenStore, tokenizer: StoreTokenizer, start: int, stop: int) -> str:
    ids: np.ndarray[Any, Any] = store.read(start, min(stop, start + _EXCERPT_TOKENS))
    return tokenizer.decode(ids.tolist())
