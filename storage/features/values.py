"""Values of features: four types, how a value is stored, and the checksum that goes with it."""

import keyword
import math
import re
import struct
import zlib

Value = bool | int | float | str
Stored = int | float | str
"""How SQLite holds it: a boolean as 0 or 1."""

INTEGER, NUMBER, TEXT, BOOLEAN = "integer", "number", "text", "boolean"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
EXACT = 1 << 53
"""Whole numbers up to here are the same as float64."""
MAX_TEXT_BYTES = 4096
_KEY = struct.Struct("<16siqi")
_FLOAT = struct.Struct("<16siqicd")
# Words of Python, of the expression language, and columns that an export has beside the feature.
_TAKEN = {*keyword.kwlist, "min", "max", "event_timestamp", "created_timestamp"}


def kind_of(value: object) -> str:
    """The type of a value. Raises ValueError, which says what is wrong, for what no feature can be."""
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise ValueError(f"{value} does not fit in 64 bits")
        return INTEGER
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
        return NUMBER
    if isinstance(value, str):
        _check_text(value)
        return TEXT
    raise ValueError(f"{str(value)[:60]!r} is no number, text, true or false")


def _check_text(text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{ascii(text)[:60]} holds half of a character") from None
    if size > MAX_TEXT_BYTES:
        raise ValueError(f"a text of {size} bytes is longer than {MAX_TEXT_BYTES}")


def is_name(name: str) -> bool:
    """Whether a feature may be called so: what an expression can name."""
    return NAME.fullmatch(name) is not None and name not in _TAKEN


def to_stored(value: Value) -> Stored:
    """What SQLite gets; a negative zero becomes zero."""
    if isinstance(value, bool):
        return int(value)
    return value + 0.0 if isinstance(value, float) else value


def from_stored(kind: str, stored: Stored) -> Value:
    """The value of a feature of this type."""
    if kind == NUMBER:
        return float(stored)
    return bool(stored) if kind == BOOLEAN else stored


def is_good(row: tuple[bytes, int, int, int, Stored, int], kind: str) -> bool:
    """Whether (document, feature, event time, import, value, crc) is as it was written."""
    try:
        return is_stored(kind, row[4]) and checksum(*row[:5]) == row[5]
    except (struct.error, TypeError):
        return False


def is_stored(kind: str, stored: object) -> bool:
    """Whether SQLite's value is one of this type: a change on the disk may make it another."""
    if kind == NUMBER:
        return isinstance(stored, float) or (isinstance(stored, int) and abs(stored) <= EXACT)
    if kind == BOOLEAN:
        return stored in (0, 1) and isinstance(stored, int)
    return isinstance(stored, str) if kind == TEXT else kind == INTEGER and isinstance(stored, int)


def checksum(document: bytes, feature: int, event_time: int, number: int, stored: Stored) -> int:
    """CRC-32 of one row: the document's 16 bytes, the feature's number, event time, the import's number, the value."""
    if isinstance(stored, float):
        return zlib.crc32(_FLOAT.pack(document, feature, event_time, number, b"f", stored))
    value = b"i%d" % stored if isinstance(stored, int) else b"t" + stored.encode("utf-8", "surrogatepass")
    return zlib.crc32(_KEY.pack(document, feature, event_time, number) + value)
