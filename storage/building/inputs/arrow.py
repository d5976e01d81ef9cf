"""Hugging Face datasets on disk, as `save_to_disk` writes them, and Arrow files: one row is one record."""

import json
import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

from ....config.errors import UserError
from .base import Sized, bad, even_cuts, open_file
from .columns import Rows, damaged, import_arrow

STATE, SPLITS = "state.json", "dataset_dict.json"
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_FILE_FORMAT = b"ARROW1"  # Arrow's other form, with a footer; Feather too


def is_saved(folder: Path) -> bool:
    """Whether a folder is one that `save_to_disk` wrote."""
    return (folder / SPLITS).is_file() or (folder / STATE).is_file()


def saved_files(folder: Path, enters: Callable[[str], bool]) -> list[str]:
    """Arrow files of a saved dataset in its own order; `enters` says which splits are not left out.

    Raises UserError naming the file that is missing or damaged, or the splits if there are several.
    """
    if (folder / SPLITS).is_file():
        splits = [name for name in _strings(folder / SPLITS, "splits") if enters(name)]
        if len(splits) != 1:
            names = ", ".join(splits) or "none"
            remedy = "give the folder of the one you mean (or of several), or leave the others out with --exclude"
            raise bad(str(folder), f"which of its splits is not clear: {names}", remedy)
        folder = folder / splits[0]
    record = _json(folder / STATE)
    if record.get("_indices_files") or record.get("_indices_data_files"):
        raise bad(str(folder / STATE), "keeps its rows' order in index files", "save it again with a newer `datasets`")
    files = [str(folder / name) for name in _file_names(folder / STATE, record)]
    for file in files:
        if not os.path.isfile(file):
            raise bad(file, f"missing, and {folder / STATE} names it", "restore it from a copy")
    return files


def cut_arrow(path: str, field: str, part_bytes: int) -> list[int]:
    """Record batches at which a file may be cut, about `part_bytes` apart."""
    arrow = import_arrow(path, "an Arrow file")
    faults: tuple[type[Exception], ...] = (UserError, *damaged(arrow))
    try:
        with arrow.memory_map(path) as source:
            places = [place for _, place in _batches(arrow, source, path, None)]
    except faults:
        return []  # reading it says what is wrong
    return even_cuts([place - before for before, place in pairwise([0, *places])], part_bytes)


def read_arrow(path: str, field: str, start: int = 0, stop: int | None = None) -> Iterator[Sized]:
    """Documents of an Arrow file: the string column `field`. The format has no checksums.

    `start` and `stop` are record batches. Raises UserError naming file, record batch and row of what is cut, damaged
    or null.
    """
    yield from _read(path, Rows(field), start, stop)


def read_arrow_chats(path: str, field: str, start: int = 0, stop: int | None = None) -> Iterator[Sized]:
    """Chats of an Arrow file, packed; else as read_arrow."""
    yield from _read(path, Rows(field, chats=True), start, stop)


def _read(path: str, rows: Rows, start: int, stop: int | None) -> Iterator[Sized]:
    arrow = import_arrow(path, "an Arrow file")
    _check_ends(path)
    number = row = before = 0
    try:
        with arrow.memory_map(path) as source:
            for batch, place in _batches(arrow, source, path, rows):
                if number == stop:
                    break
                if number < start:
                    number, row, before = number + 1, row + batch.num_rows, place
                    continue
                chosen = batch.select(rows.columns(path, arrow, batch.schema))
                for text in rows.texts(chosen, path, f"record batch {number}", row):
                    yield text, place - before
                    before = place
                row += batch.num_rows
                number += 1
    except damaged(arrow) as error:
        raise bad(path, f"record batch {number}, row {row} or one of the next: damaged ({error})") from None


def _batches(arrow: Any, source: Any, path: str, rows: Rows | None) -> Iterator[tuple[Any, int]]:
    """Record batches and the place in the file up to which they reach."""
    size_bytes = source.size()
    if source.read(len(_FILE_FORMAT)) == _FILE_FORMAT:
        reader = arrow.ipc.open_file(source)
        if rows is not None:
            rows.columns(path, arrow, reader.schema)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number), size_bytes * (number + 1) // reader.num_record_batches
        return
    source.seek(0)
    with arrow.ipc.open_stream(source) as stream:
        if rows is not None:
            rows.columns(path, arrow, stream.schema)
        for batch in stream:
            yield batch, source.tell()
        if source.tell() != size_bytes:
            raise bad(path, f"byte {source.tell()}: its stream ends here, but the file has {size_bytes} bytes")


def _check_ends(path: str) -> None:
    """A stream that is cut between two record batches would read as a shorter one."""
    with open_file(path) as file:
        start = file.read(len(_FILE_FORMAT))
        size_bytes = file.seek(0, os.SEEK_END)
        file.seek(max(0, size_bytes - len(_END_OF_STREAM)))
        end = file.read()
    if start != _FILE_FORMAT and end != _END_OF_STREAM:
        raise bad(path, f"byte {size_bytes}: cut or damaged, its end-of-stream mark is missing")


def _json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise bad(str(path), "no such file", "give a folder that `save_to_disk` wrote") from None
    except ValueError as error:
        raise bad(str(path), f"not JSON ({error})") from None
    return record if isinstance(record, dict) else {}


def _strings(path: Path, key: str) -> list[str]:
    names = _json(path).get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise bad(str(path), f"holds no list of {key}")
    return names


def _file_names(path: Path, record: dict[str, Any]) -> list[str]:
    files = record.get("_data_files")
    names = [file["filename"] for file in files] if _are_files(files) else []
    if not names:
        raise bad(str(path), "holds no list of _data_files")
    return names


def _are_files(files: object) -> TypeGuard[list[dict[str, str]]]:
    return isinstance(files, list) and all(
        isinstance(file, dict) and isinstance(file.get("filename"), str) for file in files
    )
