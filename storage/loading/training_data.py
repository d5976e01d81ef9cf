"""What the trainer reads: batches by global position, out of one store or a mixture. The state is that one integer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config.data import DataConfig
from ...config.errors import FoundBad, UserError
from ...config.model import ModelShape
from ..tokens.filesystem import choose_how
from ..tokens.inventory import read_inventory
from ..tokens.locations import Location, locate
from ..tokens.quality import quality_of
from ..tokens.reader import MAX_MAPPED, TokenStore, open_store
from ..tokens.shards import BadChunk
from ..tokens.store import TOKENIZER, read_info
from ..tokens.verify import check_presence, check_tokenizer
from .fill_in_the_middle import Filler
from .order import MAX_BLOCK, ORDER_VERSION, Order
from .origins import Origin, Place, origin_of, with_moves
from .repairs import Repair, Replacer
from .samples import Batch, Numbers, PackedSamples, Samples, SplitSamples
from .stages import Stages

_SPARE_CHUNKS = 64


class BadSource(FoundBad):
    """A chunk of one of the stores is bad: its place in data.train, and its number in that store."""

    def __init__(self, source: int, error: BadChunk) -> None:
        super().__init__(error.where, error.problem, error.remedy)
        self.source, self.chunk = source, error.chunk


class TrainingData:
    """Samples in the data order. The same config gives the same sample at a position on every rank and layout."""

    def __init__(self, stores: list[TokenStore], data: DataConfig) -> None:
        """See open."""
        self._stores = stores
        self._length = data.sequence_length
        self._samples = [_samples(store, data) for store in stores]
        counts = [samples.num_samples for samples in self._samples]
        self._orders = [Order(count, data.seed, data.window) for count in counts]
        packings = [samples.digest for samples in self._samples if isinstance(samples, PackedSamples)]
        self._stages, self._labels = Stages.of(data), [source.label for source in data.train]
        self.order_record: dict[str, Any] = {
            "version": ORDER_VERSION,
            "seed": data.seed,
            "window": data.window,
            "packing": packings,
            "stages": self._stages.record(),
        }
        """All that the order depends on beside the stores, for a checkpoint's manifest."""
        self._filler = Filler.of(data, stores[0])
        if self._filler is not None:
            self.order_record["fill_in_the_middle"] = data.fill_in_the_middle.model_dump()
        self._masked = data.prompt_mask and any(store.loss_mask is not None for store in stores)
        self._seed, self._replacers = data.seed, dict[int, Replacer]()
        self.num_samples: int = sum(counts)
        """Samples of all stores together."""

    @classmethod
    def open(cls, data: DataConfig) -> "TrainingData":
        """Open the stores of a run file's data section.

        Raises UserError for a store that is missing, too short or of another tokenizer, FoundBad for a damaged one.
        """
        stores = [_open(number, data) for number in range(len(data.train))]
        for number, store in enumerate(stores):
            if store.num_tokens <= data.sequence_length and data.packing == "split":
                problem = f"{store.path} holds {store.num_tokens} tokens, too few for one sample"
                remedy = f"lower data.sequence_length {data.sequence_length} or give a larger store"
                raise UserError(f"data.train.{number}.store", problem, remedy)
            if store.info.tokenizer_fingerprint != stores[0].info.tokenizer_fingerprint:
                problem = f"{store.path} has another tokenizer than {stores[0].path}"
                remedy = f"build it with --tokenizer {stores[0].tokenizer_folder}"
                raise UserError(f"data.train.{number}.store", problem, remedy)
        return cls(stores, data)

    def check_files(self) -> None:
        """Raises FoundBad naming a file of the stores that is missing or cut off, or a tokenizer that was changed."""
        for store, samples in zip(self._stores, self._samples, strict=True):
            check_presence(store)
            check_tokenizer(store)
            samples.check_files()

    def quality_problems(self, max_unknown: float) -> list[tuple[str, str]]:
        """Field at fault and problem of each store whose histograms say that something went wrong in its making."""
        found = []
        for number, store in enumerate(self._stores):
            quality = quality_of(store)
            where = f"data.train.{number}.store"
            if quality.unknown is not None and quality.unknown > max_unknown:
                share = f"the unknown token is {quality.unknown:.0%} of {store.path}/{quality.unknown_shard}"
                found.append((where, f"{share}, above data.max_unknown {max_unknown:.0%}"))
            if quality.cut_ids:
                problem = f"no id of {store.path} is above 65535, though its vocabulary has {self.vocab_size}"
                found.append((where, f"{problem}: they were cut to 16 bits"))
        return found

    @property
    def generations(self) -> list[int]:
        """Generation of each store."""
        return [store.info.generation for store in self._stores]

    def place_of(self, source: int) -> Location:
        """Where a store is read from."""
        return self._stores[source].path

    @property
    def tokenizer_fingerprint(self) -> str:
        return self._stores[0].info.tokenizer_fingerprint

    @property
    def tokenizer_folder(self) -> Location:
        """Folder with the tokenizer's files, in the first store."""
        return self._stores[0].tokenizer_folder

    @contextmanager
    def tokenizer_at_hand(self) -> Iterator[Path]:
        """tokenizer_folder, or a passing copy of it if the store is in an object store."""
        folder = self.tokenizer_folder
        if isinstance(folder, Path):
            yield folder
            return
        store = self._stores[0]
        names = [name for name in read_inventory(store.path, read_info(store.path)).files if name.startswith(TOKENIZER)]
        with TemporaryDirectory(prefix="trainwright-") as copy:
            for name in names:
                Path(copy, name).parent.mkdir(parents=True, exist_ok=True)
                Path(copy, name).write_bytes((store.path / name).read_bytes())
            yield Path(copy, TOKENIZER)

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
        batch = self._read(position, count, starts or self._filler is not None, out)
        if self._filler is not None:
            self._filler.apply(batch, position)
        return batch

    def _read(self, position: int, count: int, starts: bool, out: NDArray[np.int64] | None = None) -> Batch:
        batch = Batch(np.empty((count, self._length + 1), np.int64) if out is None else out, self._masked)
        located = list(self._located(position, count))
        batch.replaced = sum(replaced for _, _, _, replaced in located)
        for source, numbers, rows, _ in located:
            self._samples[source].will_need(numbers, rows, batch)  # all reads of a batch begin at once
        for source, numbers, rows, _ in located:
            try:
                self._samples[source].read(numbers, rows, batch, starts=starts)
            except BadChunk as error:
                raise BadSource(source, error) from None
        return batch

    def replace_bad(self, repairs: list[Repair]) -> None:
        """From now on read other samples than those that touch these chunks; all ranks must give the same list."""
        for source in {repair.source for repair in repairs}:
            own = sorted(repair for repair in repairs if repair.source == source)
            chunk_tokens = self._stores[source].info.chunk_tokens
            self._replacers[source] = Replacer(self._samples[source], own, self._seed, chunk_tokens)

    def explain(self, position: int, count: int) -> list[Origin]:
        """Where the samples at these positions come from."""
        positions = np.arange(position, position + count, dtype=np.int64)
        places, stages = self._stages.locate(positions)[1].tolist(), self._stages.stages_of(positions).tolist()
        moves = self._filler.moves(self._read(position, count, True), position) if self._filler is not None else []
        origins = []
        for source, numbers, rows, _ in self._located(position, count):
            store, samples = self._stores[source], self._samples[source]
            for number, row in zip(numbers.tolist(), rows.tolist(), strict=True):
                _, starts, stops = samples.extents(np.array([number]))
                ranges = zip(starts.tolist(), stops.tolist(), strict=True)
                place = Place(position + row, stages[row], self._labels[source], places[row] // samples.num_samples)
                moved = {move.start: str(move) for move in moves if move.row == row}
                origins.append(with_moves(origin_of(store, place, number, ranges), moved))
        return sorted(origins, key=lambda origin: origin.position)

    def _located(self, position: int, count: int) -> Iterator[tuple[int, Numbers, Numbers, int]]:
        """Each source that has some of the samples, their numbers there, the rows they go to, and how many of them
        are read in place of others."""
        positions = np.arange(position, position + count, dtype=np.int64)
        for source, rows, places in self._dealt(positions):
            numbers, replaced = self._orders[source].samples(places), 0
            if source in self._replacers:
                numbers, replaced = self._replacers[source].replace(numbers, positions[rows], places)
            yield source, numbers, rows, replaced

    def _dealt(self, positions: Numbers) -> Iterator[tuple[int, Numbers, Numbers]]:
        """Each source that has some of the positions, which of them, and their places among its own."""
        if len(self._stores) == 1:
            yield 0, np.arange(len(positions)), positions
            return
        sources, places = self._stages.locate(positions)
        for source in sorted(set(sources.tolist())):  # np.unique would import numpy.ma first, for milliseconds
            rows = np.flatnonzero(sources == source)
            yield source, rows, places[rows]


def _samples(store: TokenStore, data: DataConfig) -> Samples:
    kind = PackedSamples if data.packing == "best_fit" else SplitSamples
    return kind(store, data.sequence_length)


def _open(number: int, data: DataConfig) -> TokenStore:
    source = data.train[number]
    path = locate(source.store)
    info = read_info(path)
    how = choose_how(path, info).how if data.read == "auto" else data.read
    # The decoded chunks of a window are kept, so that each is decoded once; without a window there is no end of them.
    window = (data.window or 0) * data.sequence_length // info.chunk_tokens
    ragged = (data.window or 0) // MAX_BLOCK  # a block's ends lie in chunks that it shares with others
    share, decoded = MAX_MAPPED // len(data.train), window + ragged + _SPARE_CHUNKS
    try:
        return open_store(path, generation=source.generation, how=how, max_mapped=share, max_decoded=decoded, info=info)
    except UserError as error:
        if error.where == "generation":
            raise UserError(f"data.train.{number}.generation", error.problem, error.remedy) from None
        raise
