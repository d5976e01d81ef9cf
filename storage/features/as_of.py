"""The as-of join: of each document and feature the newest value that was there at a time, and never a later one."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .columns import DTYPES, Column
from .database import About, Feature, check_row, check_totals, reading
from .identity import Ids
from .values import TEXT, Stored, from_stored

_FETCH_ROWS = 8192
# SQLite takes the other columns of a row with max() from the row that has the maximum.
_QUERY = (
    "SELECT w.place, v.document, v.feature, max(v.event_time), v.import, v.value, v.crc"
    " FROM temp.wanted w JOIN value v ON v.document = w.document"
    " WHERE v.event_time <= ? AND v.feature IN ({marks}) GROUP BY v.document, v.feature"
)


@dataclass
class _Filling:
    """A column while it is filled."""

    feature: Feature
    values: NDArray[np.generic]
    known: NDArray[np.bool_]
    places: dict[str, int]
    """Of texts, in the order in which they came."""

    def put(self, place: int, stored: Stored) -> None:
        value = from_stored(self.feature.kind, stored)
        if self.feature.kind == TEXT:
            value = self.places.setdefault(str(value), len(self.places))
        self.values[place] = value
        self.known[place] = True

    def column(self, rows: NDArray[np.int64]) -> Column:
        """The column for documents whose unique numbers are `rows`."""
        texts = tuple(sorted(self.places))
        values = self.values
        if self.feature.kind == TEXT and texts:
            order = {text: place for place, text in enumerate(texts)}
            values = np.array([order[text] for text in self.places], np.int64)[values.astype(np.int64)]
        return Column(
            self.feature.kind, values[rows], self.known[rows], texts if texts else ("",) * (self.feature.kind == TEXT)
        )


def join_as_of(
    opened: tuple[sqlite3.Connection, About], path: Path, ids: Ids, names: Sequence[str], as_of: int
) -> dict[str, Column]:
    """A column [documents] of each named feature as it was at `as_of` (microseconds since 1970 UTC).

    `ids` is V16 [documents]; equal ids get equal values. Raises FoundBad if a value fails its checksum, or rows are
    missing.
    """
    connection, about = opened
    unique, rows = np.unique(ids, return_inverse=True)
    features = {about.features[name].number: about.features[name] for name in names}
    filling = {number: _empty(feature, len(unique)) for number, feature in features.items()}
    with reading(path):
        check_totals(connection, path, about)
        _want(connection, unique)
        query = _QUERY.format(marks=", ".join("?" * len(features)))
        cursor = connection.execute(query, (as_of, *features))
        while found := cursor.fetchmany(_FETCH_ROWS):
            for place, *row in found:
                check_row(path, tuple(row), features[row[1]].kind)
                filling[row[1]].put(place, row[4])
    return {each.feature.name: each.column(rows) for each in filling.values()}


def _empty(feature: Feature, length: int) -> _Filling:
    return _Filling(feature, np.zeros(length, DTYPES[feature.kind]), np.zeros(length, bool), {})


def _want(connection: sqlite3.Connection, unique: Ids) -> None:
    """A table of the ids in memory, ascending, with their places."""
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("DROP TABLE IF EXISTS temp.wanted")
    connection.execute("CREATE TEMP TABLE wanted (document BLOB PRIMARY KEY, place INTEGER NOT NULL) WITHOUT ROWID")
    data, size = unique.tobytes(), unique.dtype.itemsize
    pairs = ((data[place * size : (place + 1) * size], place) for place in range(len(unique)))
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO temp.wanted VALUES (?, ?)", pairs)
    connection.execute("COMMIT")
