"""A features file: one SQLite database that is never changed in place, so that anybody may read it without a lock."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ...config.errors import FoundBad, UserError
from .values import Stored, is_good

APPLICATION_ID = 0x54574654  # "TWFT"
VERSION = 1
REMEDY = "restore the file from a copy, or import into a new one"
_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100

SCHEMA = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
    "CREATE TABLE feature (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, type TEXT NOT NULL)",
    "CREATE TABLE import (number INTEGER PRIMARY KEY, imported_at INTEGER NOT NULL, sources TEXT NOT NULL)",
    # No type on `value`: SQLite would turn numbers of one type into another.
    "CREATE TABLE value (document BLOB NOT NULL, feature INTEGER NOT NULL, event_time INTEGER NOT NULL, value NOT NULL,"
    " import INTEGER NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (document, feature, event_time)) WITHOUT ROWID",
    "CREATE TABLE about (num_values INTEGER NOT NULL, crc_sum INTEGER NOT NULL, sha256 TEXT NOT NULL)",
)


@dataclass(frozen=True)
class Feature:
    """One feature."""

    number: int
    name: str
    kind: str
    """integer, number, text or boolean."""


@dataclass(frozen=True)
class Import:
    """One import that added values."""

    number: int
    imported_at: int
    """Microseconds since 1970 UTC."""
    sources: str
    """Names of its files, as JSON."""


@dataclass(frozen=True)
class About:
    """What a features file says of itself."""

    features: dict[str, Feature]
    imports: tuple[Import, ...]
    num_values: int
    crc_sum: int
    """Sum of all rows' checksums."""

    @property
    def sha256(self) -> str:
        """Digest of all of this."""
        features = [[each.number, each.name, each.kind] for each in self.features.values()]
        imports = [[each.number, each.imported_at, each.sources] for each in self.imports]
        record = [VERSION, features, imports, self.num_values, self.crc_sum]
        return hashlib.sha256(json.dumps(record, separators=(",", ":")).encode()).hexdigest()


def connect(path: Path, options: str, *, threads: bool = False) -> sqlite3.Connection:
    """A connection in autocommit; with `threads` it may be used by one thread after another."""
    uri = f"file:{quote(str(path.absolute()))}?{options}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=not threads)


def open_readonly(path: Path, *, threads: bool = False) -> tuple[sqlite3.Connection, About]:
    """Open a features file without locks or a journal: it is only ever replaced as a whole.

    Raises UserError if there is none, FoundBad if it is damaged.
    """
    _check_header(path)
    with reading(path):
        connection = connect(path, "mode=ro&immutable=1", threads=threads)
        try:
            return connection, read_about(connection, path)
        except BaseException:
            connection.close()
            raise


def read_about(connection: sqlite3.Connection, path: Path) -> About:
    """Read and check what the file says of itself. Raises FoundBad if it was changed."""
    features = [Feature(*row) for row in connection.execute("SELECT number, name, type FROM feature ORDER BY number")]
    imports = [
        Import(*row) for row in connection.execute("SELECT number, imported_at, sources FROM import ORDER BY number")
    ]
    rows = connection.execute("SELECT num_values, crc_sum, sha256 FROM about").fetchall()
    if len(rows) == 1:
        about = About({each.name: each for each in features}, tuple(imports), rows[0][0], rows[0][1])
        with suppress(TypeError):  # a flipped bit may turn text into bytes, which no digest was made of
            if about.sha256 == rows[0][2]:
                return about
    raise FoundBad(str(path), "what it says of itself was changed (its sha256 differs)", REMEDY)


def check_row(path: Path, row: tuple[bytes, int, int, int, Stored, int], kind: str) -> None:
    """Check (document, feature, event_time, import, value, crc) of one row. Raises FoundBad."""
    if not is_good(row, kind):
        raise FoundBad(str(path), f"a value of document {row[0].hex()} fails its crc32", REMEDY)


def check_totals(connection: sqlite3.Connection, path: Path, about: About) -> None:
    """Check that no row is missing or there twice, in one pass of SQLite's. Raises FoundBad."""
    count, total = connection.execute("SELECT count(*), coalesce(sum(crc), 0) FROM value").fetchone()
    if (count, total) != (about.num_values, about.crc_sum):
        raise FoundBad(str(path), f"holds {count} values, not the {about.num_values} that were imported", REMEDY)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raises FoundBad for what SQLite says of a damaged file."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise FoundBad(str(path), f"damaged ({error})", REMEDY) from None


def _check_header(path: Path) -> None:
    remedy = "give a file that `trainwright data features import` made"
    if not path.is_file():
        problem = "not a features file" if path.exists() else "no such features file"
        raise UserError(str(path), problem, remedy)
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        size = file.seek(0, 2)
    if header[:16] != _MAGIC or int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise UserError(str(path), "not a features file", remedy)
    version = int.from_bytes(header[60:64], "big")
    if version != VERSION:
        raise UserError(str(path), f"version {version} is not {VERSION}", "use a newer trainwright")
    page = int.from_bytes(header[16:18], "big")
    expected = (1 << 16 if page == 1 else page) * int.from_bytes(header[28:32], "big")
    if size != expected:
        raise FoundBad(str(path), f"{size} bytes instead of {expected}", REMEDY)
