"""The documents of the store that is added to, as parts without tokens: read for their hashes and signatures alone."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from ..tokens.reader import open_store
from ..tokens.store import StoreInfo
from .part_files import PartWriter
from .parts import Part, Slice
from .plan import Origin

KNOWN = "token store"
_PART_TOKENS = 32 << 20
_READ_TOKENS = 1 << 20


def known_parts(store: Path, info: StoreInfo) -> list[Part]:
    """All documents of a store, cut into parts of some 32 million tokens."""
    item_bytes = info.tokens * (2 if info.dtype == "uint16" else 4)
    count = max(1, min(info.documents, info.tokens // _PART_TOKENS))
    borders = [info.documents * number // count for number in range(count + 1)]
    slices = [Slice(str(store), item_bytes // count, start, stop) for start, stop in pairwise(borders)]
    return [Part(KNOWN, "", (each,)) for each in slices]


def read_known(part: Part, origin: Origin, writer: PartWriter, passed: Callable[[int], None]) -> None:
    """Give each document of a part to a writer that keeps no tokens. Raises FoundBad where the store is damaged."""
    (only,) = part.slices
    store = open_store(Path(origin.store), generation=origin.generation)
    first, stop = only.start, only.stop
    assert stop is not None
    starts = store.document_index.get(first, stop).tolist()
    end = store.num_tokens if stop == origin.documents else int(store.document_index.get(stop, stop + 1)[0])
    for begin, after in zip(starts, [*starts[1:], end], strict=True):
        for place in range(begin, after, _READ_TOKENS):
            writer.add(store.read(place, min(place + _READ_TOKENS, after)))
        writer.end_document()
    passed(only.size_bytes)
