"""Adding values to a features file that nobody else reads: types are settled, contradictions refused."""

import errno
import json
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ...config.errors import UserError
from ..building.inputs.base import bad
from .database import SCHEMA, About, Feature, Import, connect, read_about, reading
from .records import Row
from .times import format_time
from .values import EXACT, INTEGER, NUMBER, Stored, Value, checksum, from_stored, kind_of, to_stored

_INSERT = "INSERT OR IGNORE INTO value VALUES (?, ?, ?, ?, ?, ?)"
_FIND = "SELECT value FROM value WHERE document = ? AND feature = ? AND event_time = ?"
# What is written is a copy of our own: SQLite needs no journal, and no lock that a network filesystem may lack.
_SETTINGS = ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", "PRAGMA cache_size = -131072")
_Line = tuple[bytes, int, int, Stored, int, int]


class Adding:
    """One import."""

    def __init__(self, file: Path, database: Path) -> None:
        """`file` is empty or a features file; `database` is what messages call it."""
        self.num_records = self.num_new = self.num_known = 0
        self._path, self._new = database, file.stat().st_size == 0
        self._connection = connect(file, "mode=rw&nolock=1")
        self._lines: list[_Line] = []  # of the records that are being added
        self._features: dict[str, Feature] = {}
        self._imports: tuple[Import, ...] = ()

    def __enter__(self) -> Self:
        """Begin. Raises FoundBad if the file is damaged."""
        try:
            for statement in (*_SETTINGS, "BEGIN", *(SCHEMA if self._new else ())):
                self._connection.execute(statement)
            if not self._new:
                with reading(self._path):
                    about = read_about(self._connection, self._path)
                self._features, self._imports = dict(about.features), about.imports
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close. Raises OSError or UserError in place of what SQLite says of a disk that refuses."""
        self._connection.close()
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path)) from None
        if code == sqlite3.SQLITE_IOERR:  # SQLite keeps the reason, such as a quota, to itself
            raise UserError(str(self._path), f"the disk refuses ({error})", "check its quota and its health") from None

    def kinds(self) -> dict[str, str]:
        """Types of the features that are known by now."""
        return {feature.name: feature.kind for feature in self._features.values()}

    def add(self, path: str, rows: Sequence[Row], documents: Sequence[bytes]) -> None:
        """Add the values of some records of one file. Raises UserError naming the place of one that cannot be."""
        lines, places = self._lines, list[str]()
        lines.clear()
        for row, document in zip(rows, documents, strict=True):
            for name, value in row.values.items():
                feature = self._feature(path, row.place, name, value)
                lines.append(self._line(document, feature, row.event_time, to_stored(value)))
                places.append(row.place)
        before = self._connection.total_changes
        # In the order of the file's own tree, which makes it faster; the first of two equal keys stays the first.
        ordered = sorted(lines, key=lambda line: line[:3])
        self._connection.executemany(_INSERT, ordered)
        new = self._connection.total_changes - before
        if new < len(lines):
            self._compare(path, lines, places)
        self.num_records += len(rows)
        self.num_new += new
        self.num_known += len(lines) - new

    def finish(self, sources: Sequence[Path]) -> About:
        """Write what the file says of itself, and end."""
        names = json.dumps([source.name for source in sources])
        added = Import(self._number, time.time_ns() // 1000, names)
        run = self._connection.execute
        run("DELETE FROM feature")
        for feature in self._features.values():
            run("INSERT INTO feature VALUES (?, ?, ?)", (feature.number, feature.name, feature.kind))
        run("INSERT INTO import VALUES (?, ?, ?)", (added.number, added.imported_at, added.sources))
        num_values, crc_sum = run("SELECT count(*), coalesce(sum(crc), 0) FROM value").fetchone()
        about = About(self._features, (*self._imports, added), num_values, crc_sum)
        run("DELETE FROM about")
        run("INSERT INTO about VALUES (?, ?, ?)", (num_values, crc_sum, about.sha256))
        run("COMMIT")
        return about

    @property
    def _number(self) -> int:
        return len(self._imports) + 1

    def _line(self, document: bytes, feature: int, event_time: int, stored: Stored) -> _Line:
        crc = checksum(document, feature, event_time, self._number, stored)
        return document, feature, event_time, stored, self._number, crc

    def _feature(self, path: str, place: str, name: str, value: Value) -> int:
        """Number of the value's feature, which the first value makes, and the first fraction turns into a number."""
        kind, feature = kind_of(value), self._features.get(name)
        if feature is None:
            feature = self._features[name] = Feature(len(self._features) + 1, name, kind)
        small = kind != INTEGER or abs(int(value)) <= EXACT
        if kind == feature.kind or (feature.kind == NUMBER and kind == INTEGER and small):
            return feature.number
        if (feature.kind, kind) == (INTEGER, NUMBER) and self._largest(feature) <= EXACT:
            self._features[name] = Feature(feature.number, name, NUMBER)
            return feature.number
        problem = f"{place}: {name} is {_A[feature.kind]}, and {value!r:.60} is not"
        if {feature.kind, kind} == {INTEGER, NUMBER}:
            problem = f"{place}: {name} holds whole numbers above 2^53, which do not mix with fractions"
        raise bad(path, problem, "mend the value, or give the feature another name")

    def _largest(self, feature: Feature) -> int:
        query = "SELECT max(max(value), -min(value)) FROM value WHERE feature = ?"
        written = self._connection.execute(query, (feature.number,)).fetchone()[0] or 0
        return max(int(written), *(abs(int(line[3])) for line in self._lines if line[1] == feature.number), 0)

    def _compare(self, path: str, lines: Sequence[_Line], places: Sequence[str]) -> None:
        """Raises UserError at the first value that contradicts one with the same document, feature and event time."""
        kinds = {feature.number: feature for feature in self._features.values()}
        for line, place in zip(lines, places, strict=True):
            (there,) = self._connection.execute(_FIND, line[:3]).fetchone()
            if there != line[3]:
                feature = kinds[line[1]]
                given, known = (repr(from_stored(feature.kind, value))[:60] for value in (line[3], there))
                at = f"document {line[0].hex()} at {format_time(line[2])}"
                problem = f"{place}: {feature.name} of {at} is {given}, and another record says {known}"
                raise bad(path, problem, "values are never replaced: give it the event time at which it became so")


_A = {INTEGER: "a whole number", NUMBER: "a number", "text": "text", "boolean": "true or false"}
