"""Parquet files: one row is one record, read by row group and batch."""

import os
from collections.abc import Iterator
from typing import Any

from .base import Sized, bad, open_file
from .columns import check_column, column_texts, damaged, import_arrow

_EXPANSION = 4
_BATCH_BYTES = 4 << 20
_BATCH_ROWS = 1024
_BUFFER_BYTES = 1 << 20


def expansion(path: str) -> int:
    """About how many bytes of text a byte of the file is."""
    return _EXPANSION


def read_parquet(path: str, field: str) -> Iterator[Sized]:
    """Documents of a Parquet file: the string column `field`. Page checksums are checked where the file has them.

    Raises UserError naming file, row group and row of what is damaged or null.
    """
    arrow = import_arrow(path, "a Parquet file")
    open_file(path).close()
    try:
        file = arrow.parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, page_checksum_verification=True)
        schema = file.schema_arrow
    except damaged(arrow) as error:
        raise bad(path, f"not a whole Parquet file: its footer cannot be read ({error})") from None
    with file:
        check_column(path, arrow, schema, field)
        size_bytes, num_rows = os.stat(path).st_size, file.metadata.num_rows
        row = before = 0
        for row, text in enumerate(_texts(path, arrow, file, field), 1):
            place = size_bytes * row // max(row, num_rows)
            yield text, place - before
            before = place
        if row != num_rows:
            raise bad(path, f"{row} rows in its row groups, not {num_rows} as its footer says")


def _texts(path: str, arrow: Any, file: Any, field: str) -> Iterator[str]:
    row = 0
    for group in range(file.num_row_groups):
        place = f"row group {group}"
        try:
            about = file.metadata.row_group(group)
            end = row + about.num_rows
            for batch in file.iter_batches(_batch_rows(about, field), row_groups=[group], columns=[field]):
                yield from column_texts(batch.column(0), path, place, row, field)
                row += batch.num_rows
        except damaged(arrow) as error:
            raise bad(path, f"{place}, row {row} or one of the next: damaged ({error})") from None
        if row != end:
            raise bad(path, f"{place}: {about.num_rows - end + row} rows, not {about.num_rows} as the footer says")


def _batch_rows(group: Any, field: str) -> int:
    """Rows of about 4 MiB of text, so that long documents do not fill the memory."""
    columns = [group.column(number) for number in range(group.num_columns)]
    size = sum(column.total_uncompressed_size for column in columns if column.path_in_schema == field)
    return int(min(_BATCH_ROWS, max(1, _BATCH_BYTES * group.num_rows // max(1, size))))
