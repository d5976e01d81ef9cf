"""Looking up what is known of one document: at serving time, from a read-only file, by any thread."""

import sqlite3
import threading
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from ...config.errors import FoundBad, UserError
from . import database
from .database import check_row, open_readonly, reading
from .identity import ID_BYTES, parse_id
from .times import REMEDY, parse_time
from .values import Stored, Value, from_stored

END_OF_TIME = (1 << 63) - 1
_QUERY = (
    "SELECT document, feature, event_time, import, value, crc FROM value"
    " WHERE document = ? AND event_time <= ? ORDER BY feature, event_time"
)
_Row = tuple[bytes, int, int, int, Stored, int]


class Known(NamedTuple):
    """A value and since when it holds."""

    value: Value
    event_time: int
    """Microseconds since 1970 UTC."""


class FeatureReader:
    """A features file as it was when it was opened; a later import is seen by opening it again.

    May be shared by threads, not by processes that fork.
    """

    def __init__(self, path: Path | str) -> None:
        """Raises UserError if there is no features file, FoundBad if it is damaged."""
        self.path = Path(path)
        self._connection, self.about = open_readonly(self.path, threads=True)
        self._features = {each.number: (each.name, each.kind) for each in self.about.features.values()}
        self._lock = threading.Lock()

    def get(self, document: str | bytes, as_of: datetime | str | int | None = None) -> dict[str, Value]:
        """The newest value of each feature of a document, of those with event time <= `as_of` (all, if None).

        `document` is an id: 16 bytes or 32 hexadecimal digits. `as_of` is a time, ISO 8601 text, or microseconds since
        1970 UTC; without a zone it is UTC. A document of which nothing is known has no features: {}. Raises UserError
        for what is no id or time, FoundBad if a value fails its checksum.
        """
        return {name: known.value for name, known in self.get_known(document, as_of).items()}

    def get_known(self, document: str | bytes, as_of: datetime | str | int | None = None) -> dict[str, Known]:
        """As `get`, with event times."""
        key, until = _key(document), END_OF_TIME if as_of is None else _micros(as_of)
        try:
            with self._lock:
                rows: list[_Row] = self._connection.execute(_QUERY, (key, until)).fetchall()
        except sqlite3.Error:
            with reading(self.path):
                raise
        found: dict[str, Known] = {}
        for row in rows:  # by event time, so that the newest stays
            if row[0] != key or row[2] > until:  # SQLite trusts the order of a page's cells
                raise FoundBad(str(self.path), "rows of a page are out of order", database.REMEDY)
            name, kind = self._features.get(row[1], ("", ""))
            check_row(self.path, row, kind)
            found[name] = Known(from_stored(kind, row[4]), row[2])
        return found

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _key(document: str | bytes) -> bytes:
    if isinstance(document, str):
        return parse_id(document)
    if len(document) != ID_BYTES:
        raise UserError("DOCUMENT", f"an id of {len(document)} bytes", f"give {ID_BYTES} bytes")
    return document


def _micros(time: datetime | str | int) -> int:
    if isinstance(time, int):
        return time
    try:
        return parse_time(time if isinstance(time, str) else time.isoformat())
    except (ValueError, OverflowError):
        raise UserError("as_of", f"{time!r} is no time", REMEDY) from None
