"""What a token store is built from: the sources that a user names, found, ordered and opened."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ...config.errors import UserError
from .inputs import arrow, kinds
from .inputs.base import FieldFiles, TextInput, TokenInput
from .inputs.hdf5 import open_hdf5_input
from .inputs.megatron import open_megatron, stem
from .inputs.nanogpt import open_nanogpt
from .inputs.records import CHATS, RECORDS
from .inputs.text import TextFiles, text_files

FIELD = "text"
Inputs = list[TextInput | TokenInput]


@dataclass(frozen=True)
class Selection:
    """Which files of a source folder are taken. Hidden files, and folders with a zarr.json, never are."""

    extensions: tuple[str, ...] = ()
    """File name endings such as `.py`; all if empty."""
    exclude: tuple[str, ...] = ()
    """Names, or patterns with * and ?, of files and folders to leave out."""

    def takes(self, name: str) -> bool:
        """Whether a file of this name is taken."""
        return self.enters(name) and (not self.extensions or name.endswith(self.extensions))

    def enters(self, name: str) -> bool:
        """Whether a folder of this name is looked into."""
        return not name.startswith(".") and not any(fnmatchcase(name, pattern) for pattern in self.exclude)


def open_sources(
    sources: Sequence[Path],
    selection: Selection,
    kind: str = "auto",
    field: str | None = None,
    *,
    chats: bool = False,
) -> Inputs:
    """All sources in order; a folder's files are sorted by path, bytewise, whatever the disk's own order.

    `kind` is one of kinds.FORMATS, or `auto` to recognise it; `field` names what holds the text in records, or with
    `chats` the messages. Raises UserError naming the source if there is none, it is neither folder nor file, nothing is
    left to read, or it is damaged; and if `field` or `chats` is given and a source has no records.
    """
    if kind not in ("auto", *kinds.FORMATS):
        raise UserError("--format", repr(kind), f"use auto or one of {', '.join(kinds.FORMATS)}")
    inputs: Inputs = []
    for source in _without_halves(sources):
        found_kind, files = _find(source, selection, kind)
        if not files:
            raise UserError(f"SOURCE {source}", "holds no file to read", "check --extension and --exclude")
        if chats and found_kind + CHATS not in RECORDS:
            raise UserError(
                f"SOURCE {source}", f"--chat, but {found_kind} has no records", "give JSON lines or Parquet"
            )
        inputs += _open(found_kind + CHATS, files, field or "") if chats else _open(found_kind, files, field or FIELD)
    if field is not None and not any(isinstance(each, FieldFiles) for each in inputs):
        raise UserError("--field", f"{field!r}, but no source has fields", "leave it out")
    return _merged(inputs)


def _open(kind: str, files: list[str], field: str) -> Inputs:
    if kind == "text":
        return [text_files(files)]
    if kind == "megatron":
        return [open_megatron(prefix) for prefix in dict.fromkeys(stem(file) for file in files)]
    if kind == "hdf5":
        return [open_hdf5_input(file, field) for file in files]
    if kind == "nanogpt":
        return [open_nanogpt(file) for file in files]
    return [FieldFiles(RECORDS[kind].read, tuple(files), field, RECORDS[kind].expansion)]


def _merged(inputs: Inputs) -> Inputs:
    """Text files that follow each other as one input: a sample of them then skips files, whatever source named them."""
    merged: Inputs = []
    for each in inputs:
        if merged and isinstance(each, TextFiles) and isinstance(merged[-1], TextFiles):
            merged[-1] = TextFiles(merged[-1].files + each.files)
        else:
            merged.append(each)
    return merged


def _without_halves(sources: Sequence[Path]) -> list[Path]:
    """Sources without each .idx whose .bin was named as well, as a shell's `data*` names both."""
    named = {str(source) for source in sources}
    return [source for source in sources if source.suffix != ".idx" or f"{stem(str(source))}.bin" not in named]


def _find(source: Path, selection: Selection, kind: str) -> tuple[str, list[str]]:
    """Format and files of one source."""
    if source.is_dir():
        return _find_in_folder(source, selection, kind)
    if source.is_file():
        return (kinds.kind_of_file(str(source)) if kind == "auto" else kind), [str(source)]
    halves = [Path(f"{source}{ending}") for ending in (".bin", ".idx")]
    if kind in ("auto", "megatron") and not source.exists() and any(half.is_file() for half in halves):
        return "megatron", [str(source)]
    problem = "not a folder or file" if source.exists() else "no such file or folder"
    raise UserError(f"SOURCE {source}", problem, "give folders or files")


def _find_in_folder(folder: Path, selection: Selection, kind: str) -> tuple[str, list[str]]:
    if kind in ("auto", "arrow") and arrow.is_saved(folder):
        return "arrow", arrow.saved_files(folder, selection.enters)
    files = _walk(folder, selection)
    if kind == "auto":
        kind, files = kinds.kind_of_folder(str(folder), files)
    elif not selection.extensions:
        files = kinds.files_of_kind(kind, files)
    if kind != "text":
        kinds.check_splits(str(folder), files)
    return kind, files


def _walk(folder: Path, selection: Selection) -> list[str]:
    def complain(error: OSError) -> None:
        raise error

    found: list[tuple[tuple[bytes, ...], str]] = []
    for place, folders, names in os.walk(folder, onerror=complain):
        if "zarr.json" in names:
            folders.clear()
            continue
        folders[:] = [name for name in folders if selection.enters(name)]
        for name in names:
            path = os.path.join(place, name)
            if selection.takes(name) and os.path.isfile(path):
                found.append((tuple(map(os.fsencode, Path(path).parts)), path))
    return [path for _, path in sorted(found)]
