"""From the global order of samples to the share of one data parallel rank, read ahead of the step."""

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..config.run import RunConfig
from ..storage.loading.ahead import Ahead
from ..storage.loading.offsets import DocumentOffsets
from ..storage.loading.training_data import TrainingData
from .engine import Samples

Allocate = Callable[[tuple[int, int]], NDArray[np.int64]]
"""Makes the int64 array of a shape that a batch's tokens are gathered into, such as pinned memory."""


def in_memory(shape: tuple[int, int]) -> NDArray[np.int64]:
    """An int64 array like any other."""
    return np.empty(shape, np.int64)


class BatchReader:
    """Reads one data parallel rank's part of each global batch. The only state is the global position."""

    def __init__(
        self, run: RunConfig, data: TrainingData, data_rank: int, data_size: int, allocate: Allocate = in_memory
    ) -> None:
        self._data, self._mask_documents, self._allocate = data, run.data.document_mask, allocate
        self._count = run.train.global_batch_size // data_size
        self._first = data_rank * self._count
        self._shape = (self._count, run.data.sequence_length + 1)
        self._ahead = Ahead(self._read, run.train.global_batch_size)

    def read(self, position: int) -> Samples:
        """The share of the global batch that begins at global sample `position`: a contiguous run of its samples.

        The next batches are read in the background from here on. Raises FoundBad if data of this batch is damaged.
        """
        samples, replaced = self._ahead.get(position)
        if replaced:
            first = position + self._first
            print(f"positions {first} to {first + self._count - 1}: {replaced} samples replaced", file=sys.stderr)
        return samples

    def close(self) -> None:
        """End the thread that reads ahead."""
        self._ahead.close()

    def _read(self, position: int) -> tuple[Samples, int]:
        """The samples, and how many of them are read in place of others."""
        out = self._allocate(self._shape)
        batch = self._data.batch(position + self._first, self._count, starts=self._mask_documents, out=out)
        columns = np.arange(1, batch.tokens.shape[1])
        counted: NDArray[np.bool_] = columns < batch.filled[:, None]  # what is predicted must not be padding
        if batch.trained is not None:
            counted &= batch.trained[:, 1:] != 0
        if not self._mask_documents:
            return Samples(tokens=batch.tokens, counted=counted, documents=None), batch.replaced
        # The first token of a document is not predicted from the document before it.
        counted &= ~batch.starts[:, 1:]
        documents = DocumentOffsets.of(batch.starts[:, :-1])
        return Samples(tokens=batch.tokens, counted=counted, documents=documents), batch.replaced
