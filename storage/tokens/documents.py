"""Where documents begin in a token store."""

from itertools import count

import numpy as np
from numpy.typing import NDArray

from .index_array import IndexArray, Values
from .locations import Location
from .store import DOCUMENTS, StoreInfo


class DocumentIndex(IndexArray):
    """Places of the first tokens of all documents, ascending; the first is 0."""

    def __init__(self, store: Location, info: StoreInfo) -> None:
        super().__init__(store / DOCUMENTS, info.documents)
        self._tokens = info.tokens

    def within(self, start: int, stop: int) -> NDArray[np.int64]:
        """Document beginnings in start..stop-1, int64."""
        parts = []
        for number in range(self._chunk_of(start), self._chunk_of(stop - 1) + 1):
            starts = self.chunk(number)
            low, high = np.searchsorted(starts, np.array([start, stop], np.uint64))
            parts.append(starts[low:high].astype(np.int64))
        return np.concatenate(parts)

    def first_after(self, start: int, stop: int, limit: int) -> NDArray[np.int64]:
        """Up to `limit` beginnings of documents after token `start` and before `stop`, int64; the first ones, of which
        there may be less than are there at the border of two chunks of the index."""
        number = self._chunk_of(start)
        if number + 1 < self.num_chunks and int(self.chunk(number)[-1]) <= start:
            number += 1
        starts = self.chunk(number)
        low, high = np.searchsorted(starts, np.array([start + 1, stop], np.uint64))
        return starts[low : min(high, low + limit)].astype(np.int64)

    def marks(self, starts: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
        """Where documents begin in tokens starts[i]..starts[i]+width-1, bool [len(starts), width]."""
        result = np.zeros((len(starts), width), bool)
        firsts = np.array([self._chunk_of(start) for start in starts.tolist()], np.int64)
        lasts = np.array([self._chunk_of(start + width - 1) for start in starts.tolist()], np.int64)
        pairs = zip(firsts.tolist(), lasts.tolist(), strict=True)
        for number in sorted({chunk for first, last in pairs for chunk in range(first, last + 1)}):
            rows = np.flatnonzero((firsts <= number) & (lasts >= number))
            _mark(result, rows, starts[rows], self.chunk(number))
        return result

    def document_at(self, token: int) -> int:
        """Number of the document that holds a token."""
        chunk = self._chunk_of(token)
        return chunk * self.geometry.chunk + int(np.searchsorted(self.chunk(chunk), np.uint64(token), "right")) - 1

    def start_of(self, document: int) -> int:
        """Place of a document's first token."""
        return int(self.get(document, document + 1)[0])

    def _chunk_of(self, token: int) -> int:
        """Number of the chunk that holds the last document beginning at or before a token.

        Looked for where it would be if documents were of one length, two times of three; by halves the third.
        """
        low, high = 0, self.num_chunks  # it is not before low, and before high
        floor, ceiling = 0, self._tokens  # first tokens of documents of low and high
        for turn in count():
            if high - low < 2:
                break
            expected = (high - low) // 2 if turn % 3 == 2 else (token - floor) * (high - low) // (ceiling - floor)
            number = low + min(max(expected, 1), high - low - 1)
            starts = self.chunk(number)
            if token < int(starts[0]):
                high, ceiling = number, int(starts[0])
            else:
                low, floor = number, int(starts[-1])
                if token <= floor:
                    break
        return low


def _mark(result: NDArray[np.bool_], rows: NDArray[np.int64], starts: NDArray[np.int64], documents: Values) -> None:
    """Mark the documents of one chunk in some rows, all rows at once."""
    bounds = starts.astype(np.uint64)
    low = np.searchsorted(documents, bounds)
    counts = np.searchsorted(documents, bounds + np.uint64(result.shape[1])) - low
    row = np.repeat(np.arange(len(rows)), counts)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    result[rows[row], documents[low[row] + nth].astype(np.int64) - starts[row]] = True
