"""Samples that a rank has trained on before, found by their digests."""

from collections import OrderedDict

import google_crc32c
import numpy as np
import numpy.typing as npt


class Repeats:
    """Digests of the last samples of this rank. Costs a checksum of each sample."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._seen: OrderedDict[tuple[int, int], int] = OrderedDict()

    def look(self, tokens: npt.NDArray[np.int64], step: int) -> dict[int, int]:
        """Row of tokens [n, length] -> the step that trained on the same row, for those that repeat; all are kept."""
        found = {}
        for row, sample in enumerate(tokens):
            data = sample.tobytes()
            half = len(data) // 16 * 8  # two checksums of 32 bits: chance repeats nothing among millions
            digest = google_crc32c.value(data[:half]), google_crc32c.value(data[half:])
            if digest in self._seen:
                found[row] = self._seen.pop(digest)
            self._seen[digest] = step
        while len(self._seen) > self._window:
            self._seen.popitem(last=False)
        return found
