"""Columns of strings or of chats in Arrow memory, which Parquet files and Arrow files give batch by batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .base import bad, missing_package, no_field, text_of
from .chats import chat_columns, pack_chat


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


@dataclass(frozen=True)
class Rows:
    """What is read of each row: the string of a column, or the chat of one or several, packed."""

    field: str
    chats: bool = False

    def columns(self, path: str, arrow: Any, schema: Any) -> list[str]:
        """Columns to read. Raises UserError where the schema does not have them."""
        if self.chats:
            return chat_columns(path, schema.names, self.field)
        check_column(path, arrow, schema, self.field)
        return [self.field]

    def texts(self, batch: Any, path: str, place: str, first_row: int) -> Iterator[str]:
        """One string for each row of a record batch; as column_texts."""
        if not self.chats:
            yield from column_texts(batch.column(self.field), path, place, first_row, self.field)
            return
        for column in batch.columns:
            column.validate(full=True)
        for row, record in enumerate(batch.to_pylist(), first_row):
            yield pack_chat(record, path, f"{place}, row {row}", self.field)
