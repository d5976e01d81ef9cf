"""The formats whose documents are a field of records: how each is read, and where its files may be cut."""

from collections.abc import Callable
from dataclasses import dataclass

from . import arrow, hdf5, jsonl, parquet
from .base import Reader

CHATS = " of chats"
"""Ending of the names of formats whose records are chats."""


@dataclass(frozen=True)
class RecordFormat:
    """One format."""

    read: Reader
    expansion: Callable[[str], int]
    """About how many bytes of text a byte of this file is."""
    cut: Callable[[str, str, int], list[int]]
    """From path, field and bytes of a part to the units before which the file may be cut, ascending."""


def _plain(path: str) -> int:
    return 1


RECORDS = {
    "jsonl": RecordFormat(jsonl.read_jsonl, jsonl.expansion, jsonl.cut_jsonl),
    "parquet": RecordFormat(parquet.read_parquet, parquet.expansion, parquet.cut_parquet),
    "arrow": RecordFormat(arrow.read_arrow, _plain, arrow.cut_arrow),
    "hdf5": RecordFormat(hdf5.read_hdf5, _plain, hdf5.cut_hdf5),
    f"jsonl{CHATS}": RecordFormat(jsonl.read_jsonl_chats, jsonl.expansion, jsonl.cut_jsonl),
    f"parquet{CHATS}": RecordFormat(parquet.read_parquet_chats, parquet.expansion, parquet.cut_parquet),
    f"arrow{CHATS}": RecordFormat(arrow.read_arrow_chats, _plain, arrow.cut_arrow),
}
