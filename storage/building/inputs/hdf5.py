"""HDF5 files: documents as strings of a dataset, or token ids as `trainwright data export` writes them."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ....config.errors import UserError
from ...tokens import hdf5_layout as layout
from ...tokens.tokenizer import StoreTokenizer, take_tokenizer
from .base import (
    FieldFiles,
    Ids,
    Piece,
    Sized,
    TextInput,
    TokenInput,
    bad,
    cut,
    cuts_by_place,
    no_field,
    open_file,
    text_of,
)

_STRINGS = 256
# What h5py raises where libhdf5 meets bytes that make no sense.
_DAMAGED = (OSError, RuntimeError, KeyError, ValueError, TypeError)


def open_hdf5_input(path: str, field: str) -> TextInput | TokenInput:
    """Token ids if the file says that it is one of ours, else the strings of dataset `field`.

    Raises UserError naming the file if it is damaged.
    """
    with _open(path) as file:
        try:
            ours = file.attrs.get("format") == layout.FORMAT
        except _DAMAGED as error:
            raise _damage(path, "its attributes", error) from None
        if not ours:
            _strings(path, file, field)
            return FieldFiles(read_hdf5, (path,), field)
        return _open_tokens(path, file)


def cut_hdf5(path: str, field: str, part_bytes: int) -> list[int]:
    """Documents at which a file may be cut: as many each."""
    with _open(path) as file:
        count = len(_strings(path, file, field))
    parts = max(1, min(count, os.stat(path).st_size // part_bytes))
    return [count * number // parts for number in range(1, parts)]


def read_hdf5(path: str, field: str, start: int = 0, stop: int | None = None) -> Iterator[Sized]:
    """Documents of an HDF5 file: the strings of the one-dimensional dataset `field`.

    `start` and `stop` are documents. HDF5 knows no null and, in strings of variable length, no NUL. Raises UserError
    naming file and document.
    """
    size_bytes = os.stat(path).st_size
    with _open(path) as file:
        dataset = _strings(path, file, field)
        stop = len(dataset) if stop is None else stop
        before = size_bytes * start // max(1, len(dataset))
        for first in range(start, stop, _STRINGS):
            try:
                values = dataset[first : min(first + _STRINGS, stop)].tolist()
            except _DAMAGED as error:
                raise _damage(path, f"document {first} or one of the next", error) from None
            for number, value in enumerate(values, first):
                place = size_bytes * (number + 1) // len(dataset)
                yield text_of(value, path, f"document {number}", field), place - before
                before = place


def _strings(path: str, file: Any, field: str) -> Any:
    import h5py

    try:
        dataset, names = file.get(field), list(file)
    except _DAMAGED as error:
        raise _damage(path, f"dataset {field!r}", error) from None
    if not isinstance(dataset, h5py.Dataset):
        raise no_field(path, "", field, names)
    if dataset.ndim != 1 or h5py.check_string_dtype(dataset.dtype) is None:
        remedy = "name a dataset of strings with --field"
        raise bad(path, f"dataset {field!r} is {dataset.dtype} of shape {dataset.shape}, not a row of strings", remedy)
    return dataset


@dataclass(frozen=True)
class Hdf5Tokens(TokenInput):
    """A token store as one HDF5 file."""

    path: str
    tokens: int
    documents: int
    itemsize: int
    tokenizer: StoreTokenizer
    masked: bool
    """Whether it says which tokens are trained."""

    @property
    def size_bytes(self) -> int:
        return self.tokens * self.itemsize

    def own_tokenizer(self) -> StoreTokenizer | None:
        return self.tokenizer

    def cuts(self, part_bytes: int) -> list[int]:
        with _open(self.path) as file:
            return cuts_by_place(self.documents, lambda number: self._place(file, number) * self.itemsize, part_bytes)

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        stop = self.documents if stop is None else stop
        with _open(self.path) as file:
            first, last = self._place(file, start), self._place(file, stop)

            def of(name: str) -> Iterator[Piece]:
                ends = (end - first for end in self._ends(file, start, stop, last))
                return cut(self._blocks(file, name, first, last), ends)

            if not self.masked:
                yield from of(layout.TOKENS)
                return
            for piece, mask in zip(of(layout.TOKENS), of(layout.LOSS_MASK), strict=True):
                if len(mask.tokens) and int(mask.tokens.max()) > 1:
                    raise bad(self.path, f"{layout.LOSS_MASK}: value {mask.tokens.max()} is neither 0 nor 1")
                yield replace(piece, trained=mask.tokens.astype(np.uint8))

    def _place(self, file: Any, document: int) -> int:
        """The first token of a document, or the end of all."""
        if document >= self.documents:
            return self.tokens
        return int(_read(self.path, file, (layout.DOCUMENTS, document, document + 1))[0]) if document else 0

    def _blocks(self, file: Any, name: str, first: int, last: int) -> Iterator[Ids]:
        for start in range(first, last, layout.CHUNK):
            yield _read(self.path, file, (name, start, min(start + layout.CHUNK, last)))

    def _ends(self, file: Any, begin: int, end: int, last: int) -> Iterator[int]:
        """Ends of documents begin..end-1: the starts of the next ones, and `last`."""
        before = self._place(file, begin - 1) if begin else -1
        for start in range(begin, end, layout.CHUNK):
            stop = min(start + layout.CHUNK, end)
            starts = _read(self.path, file, (layout.DOCUMENTS, start, stop)).astype(np.int64)
            wrong = np.diff(starts, prepend=before) < 1
            if wrong.any() or (start == 0 and starts[0] != 0) or starts[-1] >= self.tokens:
                number = start + int(wrong.argmax())
                raise bad(self.path, f"document {number}: offsets do not ascend from 0 to {self.tokens}")
            before = int(starts[-1])
            yield from starts[1 if start == begin else 0 :].tolist()
        yield last


def _read(path: str, file: Any, part: tuple[str, int, int]) -> Ids:
    name, start, stop = part
    try:
        values: Ids = file[name][start:stop]
    except _DAMAGED as error:
        raise _damage(path, f"{name} {start} to {stop - 1}", error) from None
    return values


def _open_tokens(path: str, file: Any) -> Hdf5Tokens:
    try:
        attributes = dict(file.attrs)
        version = int(attributes["format_version"])
        masked = version == layout.MASKED_VERSION
        names = (layout.TOKENS, layout.DOCUMENTS, layout.LOSS_MASK) if masked else (layout.TOKENS, layout.DOCUMENTS)
        shapes = {name: (file[name].shape, file[name].dtype) for name in names}
        count, documents = int(attributes["num_tokens"]), int(attributes["num_documents"])
        files = {name: _text(dataset) for name, dataset in file[layout.TOKENIZER].items()}
    except _DAMAGED as error:
        raise _damage(path, "attributes or tokenizer", error) from None
    if version not in (layout.FORMAT_VERSION, layout.MASKED_VERSION):
        raise bad(path, f"format_version {version} is unknown", "use a newer trainwright")
    dtype = shapes[layout.TOKENS][1]
    wanted = {layout.TOKENS: ((count,), dtype), layout.DOCUMENTS: ((documents,), np.dtype("<u8"))}
    wanted |= {layout.LOSS_MASK: ((count,), np.dtype(np.uint8))} if masked else {}
    if shapes != wanted or dtype.kind != "u":
        raise bad(path, "the shapes of its datasets are not those that its attributes say")
    tokenizer = _tokenizer(path, files)
    if tokenizer.fingerprint() != attributes.get("tokenizer_fingerprint"):
        raise bad(path, f"{layout.TOKENIZER}: its tokenizer does not have the fingerprint that the file says")
    return Hdf5Tokens(path, count, documents, dtype.itemsize, tokenizer, masked)


def _text(dataset: Any) -> str:
    """A file of the tokenizer. Raises ValueError if its text is not the one that was written."""
    data: bytes = dataset[()]
    if hashlib.sha256(data).hexdigest() != dataset.attrs[layout.SHA256]:
        raise ValueError(f"{dataset.name} fails its SHA-256")
    return data.decode("utf-8")


def _tokenizer(path: str, files: dict[str, str]) -> StoreTokenizer:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            Path(folder, os.path.basename(name)).write_bytes(text.encode())
        try:
            return take_tokenizer(Path(folder))
        except UserError as error:
            raise bad(path, f"{layout.TOKENIZER}: {error.problem}") from None


def _open(path: str) -> Any:
    import h5py

    open_file(path).close()
    try:
        # Reading takes no lock: network filesystems often have none.
        return h5py.File(path, "r", locking=False)
    except _DAMAGED as error:
        raise bad(path, f"not a whole HDF5 file ({error})") from None


def _damage(path: str, place: str, error: Exception) -> UserError:
    return bad(path, f"{place}: damaged ({error})")
