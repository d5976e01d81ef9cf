"""Where documents begin in a token store."""

from itertools import count

import numpy as np
from numpy.typing import NDArray

from .index_array import IndexArray
from .locations import Location
from .store import DOCUMENTS, StoreInfo


class DocumentIndex(IndexArray):
    """Places of the first tokens of all documents, ascending; the first is 0."""

    def __init__(self, store: Location, info: StoreInfo, max_mapped: int = 0) -> None:
        super().__init__(store / DOCUMENTS, info.documents, max_mapped)
        self._tokens = info.tokens

    def within(self, start: int, stop: int) -> NDArray[np.int64]:
        """Document beginnings in start..stop-1, int64."""
        first, end = self._firsts_from(np.array([start, stop])).tolist()
        return self.get(first, end).astype(np.int64)

    def following(self, tokens: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
        """The first `limit` beginnings of documents after each token, int64 [len(tokens), limit].

        Where there are no more of them, the number of tokens.
        """
        firsts = self._firsts_from(tokens + 1)
        counts = np.minimum(limit, self.length - firsts)
        result = np.full((len(tokens), limit), self._tokens)
        some = counts > 0
        result[np.arange(limit) < counts[:, None]] = self.get_pieces(firsts[some], counts[some]).astype(np.int64)
        return result

    def marks(self, starts: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
        """Where documents begin in tokens starts[i]..starts[i]+width-1, bool [len(starts), width]."""
        result = np.zeros((len(starts), width), bool)
        firsts, ends = self._firsts_from(np.concatenate([starts, starts + width])).reshape(2, -1)
        counts = ends - firsts
        some = counts > 0
        rows = np.repeat(np.arange(len(starts)), counts)
        result[rows, self.get_pieces(firsts[some], counts[some]).astype(np.int64) - starts[rows]] = True
        return result

    def document_at(self, token: int) -> int:
        """Number of the document that holds a token."""
        return int(self._firsts_from(np.array([token + 1]))[0]) - 1

    def start_of(self, document: int) -> int:
        """Place of a document's first token."""
        return int(self.get(document, document + 1)[0])

    def _firsts_from(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of the first document that begins at or after each token, int64."""
        found = self.bounds(tokens, self._tokens)
        if found is not None:
            return found
        numbers = []
        for token in tokens.tolist():
            chunk = self._chunk_of(token)
            numbers.append(chunk * self.geometry.chunk + int(np.searchsorted(self.chunk(chunk), np.uint64(token))))
        return np.array(numbers, np.int64)

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
