"""Parts: the pieces into which sources are cut, each tokenized by one worker; where they are cut never shows."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .inputs.base import FieldFiles, Piece, Sized, TextInput, TokenInput
from .inputs.hdf5 import Hdf5Tokens, open_hdf5_input
from .inputs.megatron import MegatronPair, open_megatron
from .inputs.nanogpt import NanoGptFile, open_nanogpt
from .inputs.records import RECORDS
from .inputs.text import TextFiles

MIN_PART_BYTES, MAX_PART_BYTES = 4 << 20, 128 << 20
_PARTS = 64
TEXT, HDF5_TOKENS = "text", "hdf5 tokens"


@dataclass(frozen=True)
class Slice:
    """A file, or what lies between two of its cuts."""

    path: str
    size_bytes: int
    """About how many bytes of the file this is."""
    start: int = 0
    stop: int | None = None
    """Units of the format (bytes, row groups, record batches, documents, tokens); None is the end."""


@dataclass(frozen=True)
class Part:
    """Consecutive slices of one input."""

    kind: str
    field: str
    slices: tuple[Slice, ...]

    @property
    def size_bytes(self) -> int:
        return sum(each.size_bytes for each in self.slices)

    def record(self) -> list[Any]:
        """As JSON holds it."""
        return [self.kind, self.field, [[one.path, one.size_bytes, one.start, one.stop] for one in self.slices]]

    @classmethod
    def of_record(cls, record: Sequence[Any]) -> "Part":
        """The part that `record` gave."""
        kind, field, slices = record
        return cls(kind, field, tuple(Slice(*each) for each in slices))


@dataclass(frozen=True)
class Vocabulary:
    """What cutting and reading token ids needs of a tokenizer."""

    size: int
    end_of_document: int


def files_of(source: TextInput | TokenInput) -> list[str]:
    """Paths of all files of an input."""
    if isinstance(source, TextFiles):
        return [path for path, _ in source.files]
    if isinstance(source, FieldFiles):
        return list(source.files)
    assert isinstance(source, TokenInput)
    return [source.path, f"{source.path[:-4]}.idx"] if isinstance(source, MegatronPair) else [source.path]


def cut_inputs(inputs: Sequence[TextInput | TokenInput], vocabulary: Vocabulary) -> list[Part]:
    """Cut all inputs into parts, in order: some 64, of 4 to 128 MiB of text.

    Raises UserError naming the file of token ids that is damaged.
    """
    total = sum(each.text_bytes if isinstance(each, TextInput) else each.size_bytes for each in inputs)
    part_bytes = min(MAX_PART_BYTES, max(MIN_PART_BYTES, total // _PARTS))
    return [part for each in inputs for part in _cut(each, vocabulary, part_bytes)]


def _cut(source: TextInput | TokenInput, vocabulary: Vocabulary, part_bytes: int) -> list[Part]:
    if isinstance(source, TextFiles):
        weighed = [(Slice(path, size), size) for path, size in source.files]
        return _grouped(TEXT, "", weighed, part_bytes)
    if isinstance(source, FieldFiles):
        kind = next(kind for kind, known in RECORDS.items() if known.read is source.read)
        expansion, weighed = RECORDS[kind].expansion, []
        for path in source.files:
            size, factor = os.stat(path).st_size, expansion(path)
            cuts = RECORDS[kind].cut(path, source.field, part_bytes) if size * factor > part_bytes else []
            weighed += [(each, each.size_bytes * factor) for each in _sliced(path, size, cuts)]
        return _grouped(kind, source.field, weighed, part_bytes)
    assert isinstance(source, TokenInput)
    if isinstance(source, NanoGptFile):
        source = source.of_tokenizer(vocabulary.size, vocabulary.end_of_document)
    cuts = source.cuts(part_bytes) if source.size_bytes > part_bytes else []
    return [Part(_token_kind(source), "", (each,)) for each in _sliced(source.path, source.size_bytes, cuts)]


def _token_kind(source: TokenInput) -> str:
    kinds = {MegatronPair: "megatron", Hdf5Tokens: HDF5_TOKENS, NanoGptFile: "nanogpt"}
    return kinds[type(source)]


def _sliced(path: str, size_bytes: int, cuts: list[int]) -> list[Slice]:
    borders: list[int | None] = [0, *cuts, None]
    share = size_bytes // (len(cuts) + 1)
    sizes = [share] * len(cuts) + [size_bytes - share * len(cuts)]
    return [
        Slice(path, size, start or 0, stop) for size, start, stop in zip(sizes, borders[:-1], borders[1:], strict=True)
    ]


def _grouped(kind: str, field: str, weighed: list[tuple[Slice, int]], part_bytes: int) -> list[Part]:
    """Consecutive slices together, until they are a part's worth."""
    parts: list[Part] = []
    group: list[Slice] = []
    filled = 0
    for each, weight in weighed:
        if group and filled + weight // 2 >= part_bytes:
            parts.append(Part(kind, field, tuple(group)))
            group, filled = [], 0
        group.append(each)
        filled += weight
    return [*parts, Part(kind, field, tuple(group))] if group else parts


def part_texts(part: Part, skipped: set[str]) -> Iterator[Sized]:
    """Documents of a part of texts; files that are no text are added to `skipped`."""
    if part.kind == TEXT:
        files = TextFiles([(each.path, each.size_bytes) for each in part.slices], skipped)
        yield from files.texts()
        return
    for each in part.slices:
        yield from RECORDS[part.kind].read(each.path, part.field, each.start, each.stop)


def part_pieces(part: Part, vocabulary: Vocabulary) -> Iterator[Piece]:
    """Documents of a part of token ids."""
    (only,) = part.slices
    source: TextInput | TokenInput
    if part.kind == "megatron":
        source = open_megatron(only.path)
    elif part.kind == "nanogpt":
        source = open_nanogpt(only.path).of_tokenizer(vocabulary.size, vocabulary.end_of_document)
    else:
        source = open_hdf5_input(only.path, "")
    assert isinstance(source, TokenInput)
    yield from source.pieces(only.start, only.stop)


def holds_text(part: Part) -> bool:
    """Whether its documents are texts, not token ids."""
    return part.kind == TEXT or part.kind in RECORDS
