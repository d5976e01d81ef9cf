"""Checking a features file: every row, and that the as-of join and the look-up give equal answers."""

import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...config.errors import FoundBad
from .as_of import join_as_of
from .database import REMEDY, About, check_row, check_totals, open_readonly, reading
from .identity import ID_BYTES, Ids
from .reader import FeatureReader
from .times import format_time

Progress = Callable[[int, int], None]
"""Called with bytes of the file that were checked, about, and the bytes in all."""
_FETCH_ROWS = 8192
_NUM_TIMES = 4


@dataclass(frozen=True)
class Checked:
    """What was checked."""

    about: About
    num_documents: int
    """Different documents of which something is known."""
    times: tuple[int, ...]
    """At which both views were compared, for every document."""


def verify_features(path: Path, seed: int, progress: Progress = lambda done, total: None) -> Checked:
    """Check every row and SQLite's own structure, then compare both views for every document at some times.

    The times are the first and the last event time, and others between that `seed` decides. Raises UserError if there
    is no features file, FoundBad if it is damaged or the views differ.
    """
    connection, about = open_readonly(path)
    try:
        with reading(path):
            _check_structure(connection, path)
            check_totals(connection, path, about)
            _check_rows(connection, path, about, progress)
            ids = _all_ids(connection)
            times = _times(connection, seed)
        for time in times:
            compare_views(path, ids, time)
    finally:
        connection.close()
    return Checked(about, len(ids), times)


def compare_views(path: Path, ids: Ids, time: int) -> None:
    """Ask the as-of join and the look-up for all features of these documents at one time. Raises FoundBad."""
    connection, about = open_readonly(path)
    try:
        columns = join_as_of((connection, about), path, ids, list(about.features), time)
    finally:
        connection.close()
    with FeatureReader(path) as reader:
        for number, document in enumerate(ids):
            joined = {name: column.value(number) for name, column in columns.items() if column.known[number]}
            found = reader.get(document.tobytes(), time)
            if found != joined or [*map(type, found.values())] != [type(joined[name]) for name in found]:
                problem = f"document {document.tobytes().hex()} at {format_time(time)}: joined {joined}, found {found}"
                raise FoundBad(str(path), problem, REMEDY)


def _check_structure(connection: sqlite3.Connection, path: Path) -> None:
    (answer,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if answer != "ok":
        raise FoundBad(str(path), f"damaged ({answer})", REMEDY)


def _check_rows(connection: sqlite3.Connection, path: Path, about: About, progress: Progress) -> None:
    kinds = {feature.number: feature.kind for feature in about.features.values()}
    cursor = connection.execute("SELECT document, feature, event_time, import, value, crc FROM value")
    done, size = 0, path.stat().st_size
    while rows := cursor.fetchmany(_FETCH_ROWS):
        for row in rows:
            check_row(path, row, kinds.get(row[1], ""))
        done += len(rows)
        progress(size * done // about.num_values, size)


def _all_ids(connection: sqlite3.Connection) -> Ids:
    data = b"".join(row[0] for row in connection.execute("SELECT DISTINCT document FROM value"))
    return np.frombuffer(data, f"V{ID_BYTES}")


def _times(connection: sqlite3.Connection, seed: int) -> tuple[int, ...]:
    first, last = connection.execute("SELECT min(event_time), max(event_time) FROM value").fetchone()
    if first is None:
        return ()
    chance = random.Random(seed)
    return (first, last, *(chance.randint(first - 1, last) for _ in range(_NUM_TIMES)))
