"""What every input gives: documents in order, as text or as token ids, and errors that name the place in a file."""

import os
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ....config.errors import UserError
from ...tokens.tokenizer import StoreTokenizer

MAX_DOCUMENT_BYTES = 64 << 20
RESTORE = "restore the file from a copy, or leave it out"
Ids = NDArray[np.integer[Any]]
Sized = tuple[str, int]
"""A text, and the bytes on disk that were passed since the one before: what progress counts."""


class Reader(Protocol):
    """From a file's path and a field's name to its documents, or to those of its units start..stop-1."""

    def __call__(self, path: str, field: str, start: int = 0, stop: int | None = None) -> Iterator[Sized]: ...


class TextInput(ABC):
    """Documents as text."""

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """Bytes on disk."""

    @property
    @abstractmethod
    def text_bytes(self) -> int:
        """About how many bytes of text there are."""

    @abstractmethod
    def texts(self) -> Iterator[Sized]:
        """All documents. Raises UserError naming file and place of the first that is damaged or no text."""

    @abstractmethod
    def sample(self, every: int) -> "TextInput":
        """The same with each `every`-th document alone, to train a tokenizer on."""


@dataclass(frozen=True)
class Piece:
    """Consecutive token ids of one document."""

    tokens: Ids
    last: bool
    """Whether the document ends here."""
    size_bytes: int
    trained: NDArray[np.uint8] | None = None
    """1 for each token that is trained, else 0; None where the source does not tell, so that all are."""


class TokenInput(ABC):
    """Documents as token ids. A document may come in several pieces, so that memory is bounded."""

    path: str

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """Bytes of its token ids on disk."""

    @abstractmethod
    def own_tokenizer(self) -> StoreTokenizer | None:
        """The tokenizer that the file holds, if it holds one."""

    @abstractmethod
    def cuts(self, part_bytes: int) -> list[int]:
        """Units (documents, or tokens) before which the file may be cut, about `part_bytes` apart, ascending."""

    @abstractmethod
    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        """All documents, or those between two cuts. Raises UserError naming file and place of what is damaged."""


@dataclass(frozen=True)
class FieldFiles(TextInput):
    """Files of one format whose documents are one field of their records."""

    read: Reader
    files: tuple[str, ...]
    field: str
    expansion: Callable[[str], int] = lambda path: 1
    """About how many bytes of text a byte of this file is."""
    every: int = 1

    @property
    def size_bytes(self) -> int:
        return sum(os.stat(file).st_size for file in self.files)

    @property
    def text_bytes(self) -> int:
        return sum(os.stat(file).st_size * self.expansion(file) for file in self.files)

    def texts(self) -> Iterator[Sized]:
        number = passed = 0
        for file in self.files:
            for text, size in self.read(file, self.field):
                passed += size
                if number % self.every == 0:
                    yield text, passed
                    passed = 0
                number += 1

    def sample(self, every: int) -> "FieldFiles":
        return replace(self, every=every)


def cut(blocks: Iterable[Ids], ends: Iterable[int]) -> Iterator[Piece]:
    """Cut consecutive blocks of token ids into documents.

    `ends` are the places of the first tokens after each document, ascending; equal ones are empty documents, and the
    last is the number of all tokens.
    """
    waiting = iter(ends)
    end = next(waiting, None)
    base = place = 0
    for block in blocks:
        stop = base + len(block)
        while end is not None and end <= stop:
            part = block[place - base : end - base]
            yield Piece(part, True, part.nbytes)
            place, end = end, next(waiting, None)
        if place < stop:
            part = block[place - base :]
            yield Piece(part, False, part.nbytes)
        base = place = stop
    while end is not None:  # documents without tokens, where there is no block at all
        yield Piece(np.empty(0, np.int64), True, 0)
        end = next(waiting, None)


def cuts_by_place(count: int, place: Callable[[int], int], part_bytes: int) -> list[int]:
    """Numbers of the documents, of `count`, before which to cut; `place` is the byte at which a document begins."""
    cuts: list[int] = []
    for target in range(part_bytes, place(count), part_bytes):
        number = bisect_left(range(count), target, key=place)
        if 0 < number < count and (not cuts or number > cuts[-1]):
            cuts.append(number)
    return cuts


def even_cuts(sizes: Sequence[int], part_bytes: int) -> list[int]:
    """Numbers of the units before which to cut, so that what lies between is about `part_bytes` each."""
    cuts, filled = [], 0
    for number, size in enumerate(sizes):
        if filled and filled + size // 2 >= part_bytes:
            cuts.append(number)
            filled = 0
        filled += size
    return cuts


def bad(path: str, problem: str, remedy: str = RESTORE) -> UserError:
    """The error for a source file; `problem` begins with the place in it."""
    return UserError(f"SOURCE {path}", problem, remedy)


def missing_package(path: str, package: str, what: str) -> UserError:
    """The error for a format whose package is not installed."""
    return bad(path, f"{what} needs {package}, which is not installed", "pip install 'trainwright[data]'")


def open_file(path: str) -> IO[bytes]:
    """Open a source file. Raises UserError if it went away after it was listed; OSError if it may not be read."""
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise bad(path, "vanished while it was read", "build again") from None


def text_of(value: object, path: str, place: str, field: str) -> str:
    """A field's value as text. Raises UserError naming file, place and field unless it is a string of Unicode."""
    where = f"{place}: {field!r}"
    if value is None:
        raise bad(path, f"{where} is null", "remove the record, or make it a string; an empty one is a document too")
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise bad(path, f"{where} is not UTF-8 (byte {error.start})") from None
    if not isinstance(value, str):
        remedy = "name the field that holds the text with --field"
        raise bad(path, f"{where} is of type {type(value).__name__}, not a string", remedy)
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        problem = f"{where} holds half of a surrogate pair (character {error.start}), which is no text"
        raise bad(path, problem, "mend or remove the record") from None
    if size > MAX_DOCUMENT_BYTES:
        limit = MAX_DOCUMENT_BYTES >> 20
        raise bad(path, f"{where} has {size >> 20} MiB, and a document has at most {limit}", "split the document")
    return value


def no_field(path: str, place: str, field: str, names: Iterable[str]) -> UserError:
    """The error for records without the field."""
    names = sorted(names)
    known = ", ".join(names[:8]) or "none"
    remedy = "name the field with --field"
    if {"messages", "conversations"} & set(names):
        remedy += ", or say --chat if the records are chats"
    return bad(path, f"{place}no field {field!r} (there are: {known})", remedy)
