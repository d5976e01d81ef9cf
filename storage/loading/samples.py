"""Two ways to cut a store into samples of S + 1 tokens: at every S-th token, or by its index of packed documents."""

from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..tokens.reader import TokenStore
from .packing import Packing

Numbers = NDArray[np.int64]


class Batch:
    """Samples at consecutive positions, as far as they are filled in."""

    def __init__(self, tokens: NDArray[np.int64], masked: bool = False) -> None:
        """`tokens` int64 [count, S + 1]: inputs are all but the last column, targets all but the first."""
        self.tokens = tokens
        self.trained: NDArray[np.uint8] | None = np.ones(tokens.shape, np.uint8) if masked else None
        """Same shape: 1 where a token is learnt to be predicted, else 0; None: all are, as far as stores say."""
        self.replaced = 0
        """Samples that are others than the order's, since those touch a chunk that is known to be bad."""

    @cached_property
    def starts(self) -> NDArray[np.bool_]:
        """Same shape: True where a token begins a document or a piece of one."""
        return np.zeros(self.tokens.shape, bool)

    @cached_property
    def filled(self) -> Numbers:
        """Tokens of each sample that are not padding."""
        return np.full(len(self.tokens), self.tokens.shape[1])


class Samples(Protocol):
    """What both ways have in common."""

    num_samples: int

    def will_need(self, numbers: Numbers, rows: Numbers, batch: Batch) -> None:
        """Say what `read` is soon called with."""

    def read(self, numbers: Numbers, rows: Numbers, batch: Batch, *, starts: bool) -> None:
        """Fill rows of a batch with samples. Raises FoundBad naming what is damaged."""

    def extents(self, numbers: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Of each piece of some samples: the sample's place in `numbers`, first token, and the first after it."""

    def check_files(self) -> None:
        """Raises FoundBad naming a file that is missing or cut off."""


class SplitSamples:
    """Sample i is tokens i*S to i*S + S, both included."""

    def __init__(self, store: TokenStore, length: int) -> None:
        self._store, self._length = store, length
        self.num_samples = (store.num_tokens - 1) // length

    def will_need(self, numbers: Numbers, rows: Numbers, batch: Batch) -> None:
        """See Samples."""
        self._store.will_need(numbers, batch.tokens, rows)
        if batch.trained is not None and self._store.loss_mask is not None:
            self._store.loss_mask.will_need(numbers, batch.trained, rows)

    def read(self, numbers: Numbers, rows: Numbers, batch: Batch, *, starts: bool) -> None:
        """See Samples. Where documents begin is looked up if `starts`."""
        self._store.samples_into(numbers, batch.tokens, rows)
        if batch.trained is not None and self._store.loss_mask is not None:
            self._store.loss_mask.samples_into(numbers, batch.trained, rows)
        if starts:
            batch.starts[rows] = self._store.starts(numbers, self._length)

    def extents(self, numbers: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """See Samples."""
        starts: Numbers = numbers * self._length
        return np.arange(len(numbers)), starts, starts + self._length + 1

    def check_files(self) -> None:
        """See Samples."""


class PackedSamples:
    """Samples of whole documents and pieces of long ones, padded with the token that ends documents."""

    def __init__(self, store: TokenStore, length: int) -> None:
        """Raises UserError if the store was not packed for this length."""
        self._store = store
        self._packing = Packing(store.path, length, store.info.generation)
        self.num_samples = self._packing.info.num_samples
        self.digest = self._packing.digest

    def will_need(self, numbers: Numbers, rows: Numbers, batch: Batch) -> None:
        """Nothing: `read` says it of its pieces."""

    def read(self, numbers: Numbers, rows: Numbers, batch: Batch, *, starts: bool) -> None:
        """See Samples. Where pieces begin is known anyway."""
        firsts, lengths, which = self._packing.pieces(numbers)
        before = np.cumsum(lengths) - lengths
        own = np.searchsorted(which, np.arange(len(numbers)))  # each sample's first piece
        columns = before - before[own][which]
        places = rows[which] * batch.tokens.shape[1] + columns
        batch.tokens[rows] = self._store.info.end_of_document
        self._store.pieces_into(firsts, lengths, places, batch.tokens)
        if batch.trained is not None and self._store.loss_mask is not None:
            self._store.loss_mask.pieces_into(firsts, lengths, places, batch.trained)
        batch.starts.reshape(-1)[places] = True
        filled = np.bincount(which, weights=lengths, minlength=len(numbers)).astype(np.int64)
        batch.filled[rows] = filled
        short = filled < batch.tokens.shape[1]
        batch.starts[rows[short], filled[short]] = True  # the padding is a document of its own

    def extents(self, numbers: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """See Samples."""
        firsts, lengths, rows = self._packing.pieces(numbers)
        return rows, firsts, firsts + lengths

    def check_files(self) -> None:
        """See Samples."""
        self._packing.check_files()
