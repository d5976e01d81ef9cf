"""What is gathered out of a store: samples of one length, or pieces of any."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


class Wanted(NamedTuple):
    """Tokens from numbers[i] * step on. All arrays are int64 [n].

    Without `lengths`: as many as a row of the output has, to row rows[i], or i if rows is None. With `lengths`:
    lengths[i] tokens, to place rows[i] of the output taken as flat.
    """

    numbers: Numbers
    step: int
    rows: Numbers | None = None
    lengths: Numbers | None = None

    def each(self, out: NDArray[Any], num_tokens: int) -> Iterator[tuple[int, int, int]]:
        """First token, place in the flat output, and length of each. Raises ValueError for what is not within both."""
        count, width = len(self.numbers), out.shape[1]
        lengths = np.full(count, width) if self.lengths is None else self.lengths
        rows = np.arange(count) if self.rows is None else self.rows
        places = rows * width if self.lengths is None else rows
        starts = self.numbers * self.step
        if count and (starts.min() < 0 or lengths.min() < 1 or (starts + lengths).max() > num_tokens):
            raise ValueError(f"a sample is not within the store's {num_tokens} tokens")
        if count and (places.min() < 0 or (places + lengths).max() > out.size):
            raise ValueError("a sample is not within the output")
        return zip(starts.tolist(), places.tolist(), lengths.tolist(), strict=True)

    def by_chunk(self, out: NDArray[Any], num_tokens: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """What `each` gives, cut at chunks of `length` tokens: chunk, first token in it, place in `out`, and count."""
        for start, place, size in self.each(out, num_tokens):
            at, stop = start, start + size
            while at < stop:
                chunk, offset = divmod(at, length)
                count = min(stop - at, length - offset)
                yield chunk, offset, place + at - start, count
                at += count
