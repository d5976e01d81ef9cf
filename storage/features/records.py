"""Files of features: JSON lines, Parquet or CSV; a record is a document, an event time, and a value per feature."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ...config.errors import UserError
from ..building.inputs.base import bad
from .times import REMEDY, parse_time
from .values import Value, is_name, kind_of

DOCUMENT, EVENT_TIME, TEXT_FIELD = "document", "event_time", "text"
NAME_REMEDY = "use letters, digits and _, and no word of the expression language"


class Micros(int):
    """A time that a file holds as such, in microseconds since 1970 UTC."""


class Record(NamedTuple):
    """One record as its format gives it."""

    place: str
    """Such as `line 7`."""
    fields: Mapping[str, object]
    """None where there is no value."""
    passed: int
    """Bytes of the file that were read by now."""


class Row(NamedTuple):
    """What one record says of one document."""

    place: str
    document: str
    """Its id as text, or its text."""
    event_time: int
    values: Mapping[str, Value]
    passed: int


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """What is taken of each record."""

    features: tuple[str, ...] = ()
    """Fields to take; all of them if empty, but for document, text and event_time."""
    event_time: int | None = None
    """For records without `event_time`; microseconds since 1970 UTC."""
    by_text: bool = False
    """Documents are given by their field `text` instead of `document`."""

    @property
    def key(self) -> str:
        """The field that says which document is meant."""
        return TEXT_FIELD if self.by_text else DOCUMENT


def read_rows(path: str, kinds: Mapping[str, str], options: RowOptions) -> Iterator[Row]:
    """All records of a file, in order. `kinds` are the types of features that are known, which matters to CSV alone.

    Raises UserError naming file and place of what is damaged, no value, no time, or without a document.
    """
    for record in _records(path, kinds, options):
        yield _row(path, record, options)


def _records(path: str, kinds: Mapping[str, str], options: RowOptions) -> Iterator[Record]:
    name = path.lower()
    if name.endswith((".parquet", ".pq")):
        from .parquet_records import read_parquet_records

        return read_parquet_records(path, _wanted(options))
    if name.endswith(".csv"):
        from .csv_records import read_csv_records

        return read_csv_records(path, kinds, (*_SPECIAL, *options.features))
    if name.endswith((".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".jsonl.zst", ".ndjson.zst")):
        return _json_records(path)
    raise bad(path, "its name says no format", "name it .jsonl, .jsonl.gz, .jsonl.zst, .parquet or .csv")


_SPECIAL = (DOCUMENT, EVENT_TIME, TEXT_FIELD)


def _wanted(options: RowOptions) -> Callable[[str], bool]:
    """Which columns are read at all: texts are large."""

    def wanted(name: str) -> bool:
        if name in _SPECIAL:
            return name in (options.key, EVENT_TIME)
        return not options.features or name in options.features

    return wanted


def _json_records(path: str) -> Iterator[Record]:
    from ..building.inputs.jsonl import read_records

    for number, fields, passed in read_records(path):
        yield Record(f"line {number}", fields, passed)


def _row(path: str, record: Record, options: RowOptions) -> Row:
    fields, where = record.fields, record.place
    document = fields.get(options.key)
    if not isinstance(document, str):
        remedy = "give the id of the document" if options.key == DOCUMENT else "give its text"
        other = f" (with --store, {TEXT_FIELD!r} names it)" if options.key == DOCUMENT and TEXT_FIELD in fields else ""
        raise bad(path, f"{where}: no text in field {options.key!r}{other}", remedy)
    values: dict[str, Value] = {}
    for name in options.features or fields:
        value = fields.get(name)
        if value is None or name in _SPECIAL:
            continue
        if not is_name(name):
            raise bad(
                path, f"{where}: {name[:80]!r} is no name of a feature", f"{NAME_REMEDY}, or choose with --feature"
            )
        try:
            kind_of(value)
        except ValueError as error:
            remedy = "mend the value, or choose the fields that are features with --feature"
            raise bad(path, f"{where}: {name}: {error}", remedy) from None
        values[name] = value  # type: ignore[assignment]
    return Row(where, document, _event_time(path, record, options), values, record.passed)


def _event_time(path: str, record: Record, options: RowOptions) -> int:
    given = record.fields.get(EVENT_TIME)
    if given is None and options.event_time is not None:
        return options.event_time
    if given is None:
        raise bad(path, f"{record.place}: no event_time", "give each record its time, or all of them one: --event-time")
    if isinstance(given, Micros):
        return given
    try:
        if not isinstance(given, str):
            raise ValueError
        return parse_time(given)
    except (ValueError, OverflowError) as error:
        fine = f" ({error})" if "finer" in str(error) else ""
        raise bad(path, f"{record.place}: event_time: {str(given)[:60]!r} is no time{fine}", REMEDY) from None


def check_names(names: tuple[str, ...]) -> None:
    """Raises UserError for a name of --feature that no feature can have."""
    for name in names:
        if not is_name(name) or name in _SPECIAL:
            raise UserError("--feature", f"{name!r} is no name of a feature", NAME_REMEDY)
