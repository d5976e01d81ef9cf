"""What the trainer reads: batches by global position, out of one store or a mixture. The state is that one integer."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...config.data import DataConfig
from ...config.errors import UserError
from ...config.model import ModelShape
from ..tokens.filesystem import choose_how
from ..tokens.reader import MAX_MAPPED, TokenStore, open_store
from ..tokens.store import read_info
from ..tokens.verify import check_presence
from .mixture import Mixture, quotas_of
from .order import MAX_BLOCK, ORDER_VERSION, Order
from .origins import Origin, origin_of

_SPARE_CHUNKS = 64


@dataclass(frozen=True)
class Batch:
    """Samples at consecutive positions."""

    tokens: NDArray[np.int64]
    """[count, sequence_length + 1]: inputs are all but the last column, targets all but the first."""
    starts: NDArray[np.bool_]
    """Same shape: True where a token begins a document."""


class TrainingData:
    """Samples in the data order. The same config gives the same sample at a position on every rank and layout."""

    order_version = ORDER_VERSION

    def __init__(self, stores: list[TokenStore], data: DataConfig) -> None:
        """See open."""
        self._stores = stores
        self._length = data.sequence_length
        counts = [(store.num_tokens - 1) // data.sequence_length for store in stores]
        self._orders = [Order(count, data.seed, data.window) for count in counts]
        self._mixture = Mixture(quotas_of([source.weight for source in data.train]))
        self.num_samples: int = sum(counts)
        """Samples of sequence_length in all stores together."""

    @classmethod
    def open(cls, data: DataConfig) -> "TrainingData":
        """Open the stores of a run file's data section.

        Raises UserError for a store that is missing, too short or of another tokenizer, FoundBad for a damaged one.
        """
        stores = [_open(Path(source.store), data) for source in data.train]
        for number, store in enumerate(stores):
            if store.num_tokens <= data.sequence_length:
                problem = f"{store.path} holds {store.num_tokens} tokens, too few for one sample"
                remedy = f"lower data.sequence_length {data.sequence_length} or give a larger store"
                raise UserError(f"data.train.{number}.store", problem, remedy)
            if store.info.tokenizer_fingerprint != stores[0].info.tokenizer_fingerprint:
                problem = f"{store.path} has another tokenizer than {stores[0].path}"
                remedy = f"build it with --tokenizer {stores[0].tokenizer_folder}"
                raise UserError(f"data.train.{number}.store", problem, remedy)
        return cls(stores, data)

    def check_files(self) -> None:
        """Check that no file of the stores is missing or cut off. Raises FoundBad naming it."""
        for store in self._stores:
            check_presence(store)

    @property
    def tokenizer_fingerprint(self) -> str:
        return self._stores[0].info.tokenizer_fingerprint

    @property
    def tokenizer_folder(self) -> Path:
        """Folder with the tokenizer's files, in the first store."""
        return self._stores[0].tokenizer_folder

    @property
    def vocab_size(self) -> int:
        """One more than the tokenizer's largest id."""
        return self._stores[0].info.vocab_size

    @property
    def end_of_document(self) -> int:
        """Id of the token after each document."""
        return self._stores[0].info.end_of_document

    def check_model(self, model: ModelShape) -> None:
        """Raises UserError unless the model has an embedding for every token of the tokenizer."""
        if self.vocab_size > model.vocab_size:
            problem = f"vocab_size {model.vocab_size} is below the {self.vocab_size} of {self.tokenizer_folder}"
            raise UserError("model", problem, f"raise vocab_size to at least {self.vocab_size} or give another store")

    def batch(self, position: int, count: int, *, starts: bool = True, out: NDArray[np.int64] | None = None) -> Batch:
        """Samples at positions position..position+count-1, their tokens in `out` if it is given.

        Without `starts` the beginnings of documents are not looked up, and the batch has none. Raises FoundBad naming
        the file and chunk if data is damaged.
        """
        tokens = np.empty((count, self._length + 1), np.int64) if out is None else out
        begins = np.zeros(tokens.shape, bool)
        located = list(self._located(position, count))
        for store, samples, rows in located:
            store.will_need(samples, tokens, rows)  # all reads of a batch begin at once, in each store's order
        for store, samples, rows in located:
            store.samples_into(samples, tokens, rows)
            if starts:
                begins[rows] = store.starts(samples, self._length)
        return Batch(tokens, begins)

    def explain(self, position: int, count: int) -> list[Origin]:
        """Where the samples at these positions come from."""
        origins = []
        for store, samples, rows in self._located(position, count):
            for sample, row in zip(samples.tolist(), rows.tolist(), strict=True):
                origins.append(origin_of(store, position + row, sample, self._length))
        return sorted(origins, key=lambda origin: origin.position)

    def _located(self, position: int, count: int) -> Iterator[tuple[TokenStore, NDArray[np.int64], NDArray[np.int64]]]:
        """Each store that has some of the samples, their numbers there, and the rows of the batch they go to."""
        positions = np.arange(position, position + count, dtype=np.int64)
        if len(self._stores) == 1:
            yield self._stores[0], self._orders[0].samples(positions), positions - position
            return
        sources, places = self._mixture.locate(positions)
        for number in np.unique(sources).tolist():
            rows = np.flatnonzero(sources == number)
            yield self._stores[number], self._orders[number].samples(places[rows]), rows


def _open(path: Path, data: DataConfig) -> TokenStore:
    how = choose_how(path).how if data.read == "auto" else data.read
    info = read_info(path)
    # The decoded chunks of a window are kept, so that each is decoded once; without a window there is no end of them.
    window = (data.window or 0) * data.sequence_length // info.chunk_tokens
    ragged = (data.window or 0) // MAX_BLOCK  # a block's ends lie in chunks that it shares with others
    share = MAX_MAPPED // len(data.train)
    return open_store(path, how=how, max_mapped=share, max_decoded=window + ragged + _SPARE_CHUNKS)
