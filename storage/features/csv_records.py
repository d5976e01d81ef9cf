"""Features in CSV: a header, then one record per line; the cells of a column decide its type."""

import csv
import io
import re
from collections.abc import Iterator, Mapping

from ..building.inputs.base import bad, open_file
from .records import DOCUMENT, EVENT_TIME, TEXT_FIELD, Record
from .values import BOOLEAN, INTEGER, NUMBER, TEXT, Value

_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_TRUTH = {"true": True, "True": True, "false": False, "False": False}
_CELL_BYTES = 64 << 20
_TEXTS = (DOCUMENT, EVENT_TIME, TEXT_FIELD)


def read_csv_records(path: str, kinds: Mapping[str, str], wanted: tuple[str, ...]) -> Iterator[Record]:
    """Records of a UTF-8 CSV file; an empty cell is no value.

    A column of whole numbers, numbers, or true and false is that, any other is text; a feature whose type is known
    stays what it is. Raises UserError naming the line that is damaged.
    """
    types = {**_column_types(path), **kinds}
    for place, cells, passed in _lines(path):
        yield Record(place, {name: _value(name, cell, types) for name, cell in cells.items() if cell}, passed)


def _value(name: str, cell: str, types: Mapping[str, str]) -> Value:
    kind = _cell_type(cell) if name not in _TEXTS and types.get(name) != TEXT else TEXT
    if kind == INTEGER:
        return int(cell)
    return float(cell) if kind == NUMBER else _TRUTH[cell] if kind == BOOLEAN else cell


def _cell_type(cell: str) -> str:
    if _INTEGER.fullmatch(cell):
        return INTEGER if len(cell) < 20 and -(1 << 63) <= int(cell) < 1 << 63 else TEXT
    if _NUMBER.fullmatch(cell) and not re.match(r"-?0\d", cell):
        return NUMBER
    return BOOLEAN if cell in _TRUTH else TEXT


def _column_types(path: str) -> dict[str, str]:
    """TEXT for columns whose cells are not all of one type; the others need no entry."""
    found: dict[str, set[str]] = {}
    for _, cells, _ in _lines(path):
        for name, cell in cells.items():
            if cell and name not in _TEXTS and TEXT not in found.setdefault(name, set()):
                found[name].add(_cell_type(cell))
    return {name: TEXT for name, types in found.items() if TEXT in types or (BOOLEAN in types and len(types) > 1)}


def _lines(path: str) -> Iterator[tuple[str, dict[str, str], int]]:
    """Place, cells by column, and bytes read."""
    csv.field_size_limit(_CELL_BYTES)
    with open_file(path) as file:
        reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
        header: list[str] | None = None
        line = 1
        try:
            for cells in reader:
                if header is None:
                    header = cells
                    if len(set(header)) != len(header):
                        raise bad(path, "line 1: a column's name stands there twice", "give each column one name")
                elif cells:
                    if len(cells) != len(header):
                        problem = f"line {line}: {len(cells)} cells, and {len(header)} in the header"
                        raise bad(path, problem)
                    yield f"line {line}", dict(zip(header, cells, strict=True)), file.tell()
                line = reader.line_num + 1
        except csv.Error as error:
            raise bad(path, f"line {line}: not CSV ({error})") from None
        except UnicodeDecodeError:
            raise bad(path, f"line {line} or soon after it: not UTF-8") from None
        if header is None:
            raise bad(path, "empty", "give a header and records")
