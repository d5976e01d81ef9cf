"""Where the documents of some samples begin: offsets in each sample, and cumulative lengths over any run of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Offsets = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class DocumentOffsets:
    """Documents of samples of `length` tokens each; what a sample has of one is a document of its own there."""

    length: int
    offsets: Offsets
    """int32 [num_documents], sample after sample: place of each document's first token in its sample."""
    bounds: NDArray[np.int64]
    """int64 [num_samples + 1]: sample i's offsets are bounds[i] to bounds[i + 1]; the first of them is 0."""

    @classmethod
    def of(cls, starts: NDArray[np.bool_]) -> "DocumentOffsets":
        """From bool [num_samples, length], True where a document begins; a sample's first token always begins one."""
        count, length = starts.shape
        begins = starts.copy()
        begins[:, 0] = True
        places = np.flatnonzero(begins)
        bounds = np.searchsorted(places, np.arange(count + 1) * length)
        return cls(length=length, offsets=(places % length).astype(np.int32), bounds=bounds)

    def cumulative(self, first: int, stop: int) -> Offsets:
        """Cumulative lengths over samples first..stop-1 laid end to end: int32 [documents + 1], from 0 to all tokens.

        These are the `cu_seqlens` of packed attention.
        """
        counts = np.diff(self.bounds[first : stop + 1])
        before = np.repeat(np.arange(stop - first) * self.length, counts)
        places = self.offsets[self.bounds[first] : self.bounds[stop]] + before
        return np.append(places, (stop - first) * self.length).astype(np.int32)
