"""Features in Parquet: one row is one record; only the columns that are wanted are read."""

import os
from collections.abc import Callable, Iterator
from typing import Any

from ..building.inputs.base import bad, open_file
from ..building.inputs.columns import damaged, import_arrow
from .records import EVENT_TIME, Micros, Record

_BATCH_ROWS = 4096


def read_parquet_records(path: str, wanted: Callable[[str], bool]) -> Iterator[Record]:
    """Records of a Parquet file; times without a zone are UTC. Page checksums are checked where there are any.

    Raises UserError naming file and row group of what is damaged.
    """
    arrow = import_arrow(path, "a Parquet file")
    open_file(path).close()
    try:
        file = arrow.parquet.ParquetFile(path, page_checksum_verification=True)
        names = file.schema_arrow.names
    except damaged(arrow) as error:
        raise bad(path, f"not a whole Parquet file: its footer cannot be read ({error})") from None
    if len(set(names)) != len(names):
        raise bad(path, "a column's name stands there twice", "give each column one name")
    size, row = os.stat(path).st_size, 0
    with file:
        for group in range(file.num_row_groups):
            for fields in _fields(arrow, file, group, path, [name for name in names if wanted(name)]):
                row += 1
                yield Record(f"row {row - 1}", fields, size * row // max(1, file.metadata.num_rows))
    if row != file.metadata.num_rows:
        raise bad(path, f"{row} rows in its row groups, not {file.metadata.num_rows} as its footer says")


def _fields(arrow: Any, file: Any, group: int, path: str, names: list[str]) -> Iterator[dict[str, object]]:
    try:
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names):
            batch.validate(full=True)
            columns = [_values(arrow, batch.column(name), name, path) for name in names]
            for values in zip(*columns, strict=True):
                yield dict(zip(names, values, strict=True))
    except damaged(arrow) as error:
        raise bad(path, f"row group {group}: damaged ({error})") from None


def _values(arrow: Any, column: Any, name: str, path: str) -> list[object]:
    kind = column.type
    if name == EVENT_TIME and (arrow.types.is_timestamp(kind) or arrow.types.is_date(kind)):
        zone = getattr(kind, "tz", None)
        try:
            times = column.cast(arrow.timestamp("us", zone)).cast(arrow.int64())
        except arrow.ArrowInvalid as error:
            raise bad(path, f"event_time: a time does not fit ({error})", "give whole microseconds") from None
        return [None if time is None else Micros(time) for time in times.to_pylist()]
    return list(column.to_pylist())
