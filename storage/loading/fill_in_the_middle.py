"""Fill in the middle: in some documents of a sample the middle is moved to the end, as a pure function of the position.

docs/data-order.md gives the function in words, with a vector.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ...config.data import DataConfig
from ...config.errors import UserError
from ..tokens.reader import TokenStore
from ..tokens.tokenizer import open_tokenizer
from .order import Words, absorb
from .samples import Batch

_TAG = 0x46494D  # keeps these numbers apart from those of the data order
_SENTINELS = 3
_LEAST_TOKENS = 2 * _SENTINELS
_DONE, _FORM, _CUTS = range(3)


@dataclass(frozen=True)
class Move:
    """What is done to one document of a sample: tokens start..stop-1 of its row become as many others."""

    row: int
    start: int
    stop: int
    """Its end-of-document token is not among them, and stays where it is."""
    suffix_first: bool
    prefix: int
    middle: int
    """Tokens of both; the suffix is the rest but three, which are cut off to make room for the special tokens."""

    @property
    def suffix(self) -> int:
        """Tokens of the suffix."""
        return self.stop - self.start - _SENTINELS - self.prefix - self.middle

    def __str__(self) -> str:
        form = "SPM" if self.suffix_first else "PSM"
        return f"{form}, prefix {self.prefix}, middle {self.middle}, suffix {self.suffix} tokens, {_SENTINELS} cut off"


class Filler:
    """Moves middles in batches. The same seed does the same at a position on every rank and layout."""

    def __init__(self, data: DataConfig, tokens: tuple[int, int, int], end_of_document: int) -> None:
        """`tokens` are the ids that stand before prefix, middle and suffix."""
        self._config, self._tokens, self._end = data.fill_in_the_middle, tokens, end_of_document
        self._key = absorb(absorb(np.zeros(1, np.uint64), data.seed), _TAG)

    @classmethod
    def of(cls, data: DataConfig, store: TokenStore) -> "Filler | None":
        """For a run file's data section and a store of its tokenizer; None if nothing is to be done.

        Raises UserError naming the special token that the tokenizer does not have.
        """
        if not data.fill_in_the_middle.rate:
            return None
        tokenizer, ids = open_tokenizer(store.path).tokenizer, []
        for name in ("prefix", "middle", "suffix"):
            token = getattr(data.fill_in_the_middle.tokens, name)
            number = tokenizer.token_to_id(token)
            if number is None:
                problem = f"{token!r} is no token of {store.tokenizer_folder}"
                remedy = "name one that is, or set data.fill_in_the_middle.rate=0"
                raise UserError(f"data.fill_in_the_middle.tokens.{name}", problem, remedy)
            ids.append(int(number))
        return cls(data, (ids[0], ids[1], ids[2]), store.info.end_of_document)

    def moves(self, batch: Batch, position: int) -> list[Move]:
        """What is done to the samples at `position` and what follows; where documents begin must be known.

        Documents of fewer than six tokens, and those that are not predicted whole, stay as they are.
        """
        rows, starts, stops = self._documents(batch)
        keys = absorb(absorb(self._key, (position + rows).astype(np.uint64)), starts.astype(np.uint64))
        done = _below(absorb(keys, _DONE), self._config.rate)
        rows, starts, stops, keys = rows[done], starts[done], stops[done], keys[done]
        suffix_first = _below(absorb(keys, _FORM), self._config.spm_rate)
        places = (stops - starts - _SENTINELS + 1).astype(np.uint64)
        cuts = np.sort([absorb(keys, _CUTS) % places, absorb(keys, _CUTS + 1) % places], axis=0).astype(np.int64)
        columns = (rows, starts, stops, suffix_first, cuts[0], cuts[1] - cuts[0])
        return [Move(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]

    def apply(self, batch: Batch, position: int) -> None:
        """Do it to the tokens of a batch. Where documents begin and end stays as it is."""
        prefix_token, middle_token, suffix_token = (np.array([token]) for token in self._tokens)
        for move in self.moves(batch, position):
            row = batch.tokens[move.row]
            kept = row[move.start : move.stop - _SENTINELS].copy()
            prefix, middle, suffix = np.split(kept, [move.prefix, move.prefix + move.middle])
            spm = (prefix_token, suffix_token, suffix, middle_token, prefix, middle)
            psm = (prefix_token, prefix, suffix_token, suffix, middle_token, middle)
            row[move.start : move.stop] = np.concatenate(spm if move.suffix_first else psm)

    def _documents(self, batch: Batch) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Row, first column and the first after it of all documents that may be changed, without their end tokens."""
        found = np.array(list(self._each(batch)), np.int64).reshape(-1, 3)
        return found[:, 0], found[:, 1], found[:, 2]

    def _each(self, batch: Batch) -> Iterator[tuple[int, int, int]]:
        for row, filled in enumerate(batch.filled.tolist()):
            begins = np.flatnonzero(batch.starts[row, 1:filled]) + 1
            bounds = [0, *begins.tolist(), filled]
            for start, stop in pairwise(bounds):
                stop -= int(batch.tokens[row, stop - 1]) == self._end
                whole = batch.trained is None or batch.trained[row, start:stop].all()
                if whole and stop - start >= _LEAST_TOKENS:
                    yield row, start, stop


def _below(words: Words, share: float) -> NDArray[np.bool_]:
    """Whether words, each taken as a fraction of 2**64, are below a share: never for 0, always for 1."""
    below: NDArray[np.bool_] = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share
    return below
