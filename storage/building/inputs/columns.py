"""A column of strings in Arrow memory, which Parquet files and Arrow files give batch by batch."""

from collections.abc import Iterator
from typing import Any

from .base import bad, missing_package, no_field, text_of


def import_arrow(path: str, what: str) -> Any:
    """The pyarrow package with its `parquet` and `ipc`. Raises UserError naming the extra where it is missing."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise missing_package(path, "pyarrow", what) from None
    return pyarrow


def damaged(arrow: Any) -> tuple[type[Exception], ...]:
    """What pyarrow raises where bytes make no sense; not ValueError, which UserError is."""
    return (arrow.ArrowException, OSError, UnicodeDecodeError, KeyError, IndexError, OverflowError)


def check_column(path: str, arrow: Any, schema: Any, field: str) -> None:
    """Raises UserError unless the schema has one column of this name, and it holds strings."""
    if schema.names.count(field) != 1:
        raise no_field(path, "", field, schema.names)
    kind = schema.field(field).type
    if arrow.types.is_dictionary(kind):
        kind = kind.value_type
    if not (arrow.types.is_string(kind) or arrow.types.is_large_string(kind) or arrow.types.is_string_view(kind)):
        remedy = "name the field that holds the text with --field"
        raise bad(path, f"field {field!r} is of type {kind}, not a string", remedy)


def column_texts(column: Any, path: str, place: str, first_row: int, field: str) -> Iterator[str]:
    """Texts of one record batch's column, whose first value stands in row `first_row` of the file.

    Raises Arrow's errors where its buffers are damaged, UserError naming the row where a value is no text.
    """
    column.validate(full=True)  # without it a damaged offset would be read from anywhere in memory
    values = column.dictionary_decode() if hasattr(column, "dictionary_decode") else column
    for row, value in enumerate(values.to_pylist(), first_row):
        yield text_of(value, path, f"{place}, row {row}", field)
