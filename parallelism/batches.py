"""From the global order of samples to the share of one data parallel rank."""

import numpy as np

from ..config.run import RunConfig
from ..storage.loading.training_data import TrainingData
from .engine import Samples


class BatchReader:
    """Reads one data parallel rank's part of each global batch. The only state is the global position."""

    def __init__(self, run: RunConfig, data: TrainingData, data_rank: int, data_size: int) -> None:
        self._data, self._mask_documents = data, run.data.document_mask
        self._global = run.train.global_batch_size
        self._count = self._global // data_size
        self._first = data_rank * self._count

    def read(self, position: int) -> Samples:
        """The share of the global batch that begins at global sample `position`: a contiguous run of its samples."""
        batch = self._data.batch(position + self._first, self._count)
        counted = np.ones((self._count, batch.tokens.shape[1] - 1), dtype=np.bool_)
        if not self._mask_documents:
            return Samples(tokens=batch.tokens, counted=counted, documents=None)
        # The first token of a document is not predicted from the document before it.
        counted &= ~batch.starts[:, 1:]
        documents = np.cumsum(batch.starts[:, :-1], axis=1, dtype=np.int32)
        return Samples(tokens=batch.tokens, counted=counted, documents=documents)
