"""Features in a form that Feast reads: a Parquet file per feature, and a feature repository that names them."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..building.inputs.columns import import_arrow
from ..durable import sync
from .copying import folder_beside
from .database import About, Feature, check_row, check_totals, open_readonly, reading
from .values import BOOLEAN, INTEGER, NUMBER, TEXT, Stored, from_stored

Progress = Callable[[int, int], None]
"""Called with bytes of the features file that were written, about, and the bytes in all."""
_FETCH_ROWS = 65536
_Row = tuple[bytes, int, int, int, Stored, int, int]
_QUERY = (
    "SELECT v.document, v.feature, v.event_time, v.import, v.value, v.crc, i.imported_at"
    " FROM value v JOIN import i ON i.number = v.import WHERE v.feature = ?"
)
_FEAST = {INTEGER: "Int64", NUMBER: "Float64", TEXT: "String", BOOLEAN: "Bool"}
_STORE_YAML = """\
project: trainwright
provider: local
registry: registry.db
online_store:
  type: sqlite
  path: online_store.db
entity_key_serialization_version: 3
"""
_HEAD = '''\
"""Features of documents, written by `trainwright data features export`.

Each feature has a view of its own, since each has event times of its own. A document is named by the 32 hexadecimal
digits of its id. In this folder: `feast apply`, then `feast materialize START END` for the online store.
"""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Bool, Float64, Int64, String

document = Entity(name="document", join_keys=["document"], value_type=ValueType.STRING)


def view(name: str, kind: object) -> FeatureView:
    """A value holds until the next one: there is no time to live."""
    source = FileSource(
        name=f"{name}_values",
        path=f"data/{name}.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    schema = [Field(name=name, dtype=kind)]
    return FeatureView(name=name, entities=[document], ttl=timedelta(0), schema=schema, source=source, online=True)


'''


def export_feast(path: Path, folder: Path, progress: Progress = lambda done, total: None) -> About:
    """Write the new folder `folder`: feature_store.yaml, definitions.py and data/NAME.parquet for each feature.

    Columns: document (its id in hexadecimal), event_timestamp and created_timestamp (microseconds, UTC), the feature.
    Raises UserError if `folder` exists, FoundBad if the features file is damaged; then nothing is left.
    """
    arrow = import_arrow(str(folder), "an export in Parquet")
    with folder_beside(folder, f"FOLDER {folder}") as beside:
        connection, about = open_readonly(path)
        try:
            with reading(path):
                check_totals(connection, path, about)
            (beside / "data").mkdir()
            done, size = 0, path.stat().st_size
            for feature in about.features.values():
                rows = _rows(connection, path, feature)
                file = beside / "data" / f"{feature.name}.parquet"
                for count in _write_parquet(arrow, file, feature, rows):
                    done += count
                    progress(size * done // about.num_values, size)
        finally:
            connection.close()
        _write_repository(beside, about)
    return about


def _rows(connection: sqlite3.Connection, path: Path, feature: Feature) -> Iterator[list[_Row]]:
    """Checked rows of one feature, many at a time."""
    with reading(path):
        cursor = connection.execute(_QUERY, (feature.number,))
        while rows := cursor.fetchmany(_FETCH_ROWS):
            for row in rows:
                check_row(path, row[:6], feature.kind)
            yield rows


def _write_parquet(arrow: Any, file: Path, feature: Feature, batches: Iterator[list[_Row]]) -> Iterator[int]:
    """Write one feature's file; the numbers of rows as they are written."""
    time = arrow.timestamp("us", "UTC")
    kinds = {INTEGER: arrow.int64(), NUMBER: arrow.float64(), TEXT: arrow.string(), BOOLEAN: arrow.bool_()}
    types = [arrow.string(), time, time, kinds[feature.kind]]
    names = ["document", "event_timestamp", "created_timestamp", feature.name]
    schema = arrow.schema(list(zip(names, types, strict=True)))
    with arrow.parquet.ParquetWriter(file, schema, write_page_checksum=True) as writer:
        for rows in batches:
            columns = [
                [row[0].hex() for row in rows],
                [row[2] for row in rows],
                [row[6] for row in rows],
                [from_stored(feature.kind, row[4]) for row in rows],
            ]
            arrays = [arrow.array(column, kind) for column, kind in zip(columns, types, strict=True)]
            writer.write_table(arrow.table(arrays, schema=schema))
            yield len(rows)
    sync(file)


def _write_repository(folder: Path, about: About) -> None:
    views = [f'{name}_view = view("{name}", {_FEAST[each.kind]})' for name, each in about.features.items()]
    named = ", ".join(f"{name}_view" for name in about.features)
    service = f'all_features = FeatureService(name="all_features", features=[{named}])'
    texts = {"feature_store.yaml": _STORE_YAML, "definitions.py": _HEAD + "\n".join([*views, service]) + "\n"}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
        sync(folder / name)
    sync(folder)
