"""Parquet files: one row is one record, read by row group and batch."""

import os
from collections.abc import Iterator
from typing import Any

from .base import Sized, bad, even_cuts, open_file
from .columns import Rows, damaged, import_arrow

_EXPANSION = 4
_BATCH_BYTES = 4 << 20
_BATCH_ROWS = 1024
_BUFFER_BYTES = 1 << 20


def expansion(path: str) -> int:
    """About how many bytes of text a byte of the file is."""
    return _EXPANSION


def cut_parquet(path: str, field: str, part_bytes: int) -> list[int]:
    """Row groups at which a file may be cut, about `part_bytes` of uncompressed data apart."""
    arrow = import_arrow(path, "a Parquet file")
    try:
        with arrow.parquet.ParquetFile(path) as file:
            sizes = [file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups)]
    except damaged(arrow):
        return []  # reading it says what is wrong
    return even_cuts(sizes, part_bytes)


def read_parquet(path: str, field: str, start: int = 0, stop: int | None = None) -> Iterator[Sized]:
    """Documents of a Parquet file: the string column `field`. Page checksums are checked where the file has them.

    `start` and `stop` are row groups. Raises UserError naming file, row group and row of what is damaged or null.
    """
    yield from _read(path, Rows(field), start, stop)


def read_parquet_chats(path: str, field: str, start: int = 0, stop: int | None = None) -> Iterator[Sized]:
    """Chats of a Parquet file, packed; else as read_parquet."""
    yield from _read(path, Rows(field, chats=True), start, stop)


def _read(path: str, rows: Rows, start: int, stop: int | None) -> Iterator[Sized]:
    arrow = import_arrow(path, "a Parquet file")
    open_file(path).close()
    try:
        file = arrow.parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, page_checksum_verification=True)
        schema = file.schema_arrow
    except damaged(arrow) as error:
        raise bad(path, f"not a whole Parquet file: its footer cannot be read ({error})") from None
    with file:
        rows.columns(path, arrow, schema)
        size_bytes, num_rows = os.stat(path).st_size, file.metadata.num_rows
        groups = range(start, file.num_row_groups if stop is None else stop)
        row = _rows_before(file, start)
        before = size_bytes * row // max(1, num_rows)
        for row, text in enumerate(_texts(path, arrow, (file, groups), rows), row + 1):  # noqa: B020
            place = size_bytes * row // max(row, num_rows)
            yield text, place - before
            before = place
        if stop is None and row != num_rows:
            raise bad(path, f"{row} rows in its row groups, not {num_rows} as its footer says")


def _rows_before(file: Any, group: int) -> int:
    return sum(file.metadata.row_group(number).num_rows for number in range(group))


def _texts(path: str, arrow: Any, part: tuple[Any, range], rows: Rows) -> Iterator[str]:
    file, groups = part
    columns = rows.columns(path, arrow, file.schema_arrow)
    row = _rows_before(file, groups.start)
    for group in groups:
        place = f"row group {group}"
        try:
            about = file.metadata.row_group(group)
            end = row + about.num_rows
            for batch in file.iter_batches(_batch_rows(about, columns), row_groups=[group], columns=columns):
                yield from rows.texts(batch, path, place, row)
                row += batch.num_rows
        except damaged(arrow) as error:
            raise bad(path, f"{place}, row {row} or one of the next: damaged ({error})") from None
        if row != end:
            raise bad(path, f"{place}: {about.num_rows - end + row} rows, not {about.num_rows} as the footer says")


def _batch_rows(group: Any, fields: list[str]) -> int:
    """Rows of about 4 MiB of text, so that long documents do not fill the memory."""
    columns = [group.column(number) for number in range(group.num_columns)]
    own = [column for column in columns if column.path_in_schema.partition(".")[0] in fields]
    size = sum(column.total_uncompressed_size for column in own)
    return int(min(_BATCH_ROWS, max(1, _BATCH_BYTES * group.num_rows // max(1, size))))
