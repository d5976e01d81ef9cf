"""Damaged files of columns are named with row group, record batch or row, and nothing is left of the build."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .damage import TEXTS, Damage, changed, cut, flip, refused, replace
from .files import WRITERS, write_parquet, write_saved, write_stream, write_strings

PLAIN = {"compression": "none", "use_dictionary": False}


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (cut(0.9), {}, "not a whole Parquet file: its footer cannot be read (Parquet magic bytes not found"),
        (cut(0), {}, "not a whole Parquet file"),
        (flip(-6), {}, "not a whole Parquet file"),
        (
            replace(b"document 21", b"document 23"),
            {**PLAIN, "write_page_checksum": True},
            "row group 5, row 20 or one of the next: damaged (could not verify page integrity, CRC",
        ),
        (replace(b"document 33", b"document \xff3"), PLAIN, "row group 8, row 32 or one of the next: damaged (Inv"),
    ],
)
def test_parquet(change: Damage, options: dict[str, Any], words: str, tmp_path: Path) -> None:
    options = {"write_statistics": False, **options}
    path = changed(write_parquet(tmp_path / "a.parquet", TEXTS, **options), change)
    message = refused(tmp_path, path)
    assert message.startswith(f"SOURCE {path}: ")
    assert words in message


def test_a_compressed_page(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", TEXTS, compression="gzip")
    with pq.ParquetFile(path) as file:
        place = file.metadata.row_group(6).column(1).dictionary_page_offset
    message = refused(tmp_path, changed(path, flip(place + 60)))
    assert f"SOURCE {path}: row group 6, row 24 or one of the next: damaged (" in message


def test_rows_without_text(tmp_path: Path) -> None:
    texts: list[Any] = [*TEXTS[:6], None]
    for path, place in (
        (write_parquet(tmp_path / "a.parquet", texts), "row group 1, row 6: 'text' is null; remove"),
        (write_stream(tmp_path / "a.arrow", texts), "record batch 1, row 6: 'text' is null; remove"),
    ):
        assert f"SOURCE {path}: {place}" in refused(tmp_path, path)
        message = refused(tmp_path, path, field="body")
        assert f"SOURCE {path}: no field 'body' (there are: id, text); name the field with --field" in message
        assert f"SOURCE {path}: field 'id' is of type int64, not a string" in refused(tmp_path, path, field="id")
    strings = write_strings(tmp_path / "a.h5", TEXTS)
    assert f"SOURCE {strings}: no field 'body' (there are: text)" in refused(tmp_path, strings, field="body")
    with h5py.File(strings, "a") as file:
        file["number"] = np.arange(5)
    assert "dataset 'number' is int64 of shape (5,), not a row of strings" in refused(tmp_path, strings, field="number")


def between_batches(data: bytes) -> bytes:
    """A stream cut before its fourth record batch."""
    with pa.BufferReader(data) as source:
        reader = pa.ipc.open_stream(source)
        for _ in range(3):
            reader.read_next_batch()
        return data[: source.tell()]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cut(0.7), "cut or damaged, its end-of-stream mark is missing"),
        (cut(0), "byte 0: cut or damaged"),
        (between_batches, "cut or damaged, its end-of-stream mark is missing"),
        (lambda data: between_batches(data) + data[-8:] * 2, "its stream ends here, but the file has"),
        (lambda data: cut(0.7)(data) + data[-8:], "record batch 5, row 25 or one of the next: damaged ("),
        (replace(b"document 12", b"document \xff2"), "record batch 2, row 10 or one of the next: damaged (Inv"),
    ],
)
def test_an_arrow_stream(change: Damage, words: str, tmp_path: Path) -> None:
    path = changed(write_stream(tmp_path / "a.arrow", TEXTS), change)
    message = refused(tmp_path, path)
    assert message.startswith(f"SOURCE {path}: ")
    assert words in message


def test_an_arrow_file(tmp_path: Path) -> None:
    path = changed(WRITERS["file"](tmp_path, TEXTS), cut(0.7))
    assert f"SOURCE {path}: record batch 0, row 0 or one of the next: damaged (" in refused(tmp_path, path)


def test_a_saved_dataset(tmp_path: Path) -> None:
    folder = write_saved(tmp_path / "saved", TEXTS)
    state = (folder / "state.json").read_text()
    second = folder / "data-00001-of-00002.arrow"
    changed(second, cut(0.5))
    assert f"SOURCE {second}: byte " in refused(tmp_path, folder)
    second.unlink()
    assert f"SOURCE {second}: missing, and {folder / 'state.json'} names it" in refused(tmp_path, folder)
    for text, words in (
        (state[:50], "not JSON"),
        ("{}", "holds no list of _data_files"),
        ('{"_data_files": [{"filename": 5}]}', "holds no list of _data_files"),
        (json.dumps({**json.loads(state), "_indices_files": [{"filename": "i.arrow"}]}), "save it again"),
    ):
        (folder / "state.json").write_text(text)
        assert f"SOURCE {folder / 'state.json'}: " in refused(tmp_path, folder)
        assert words in refused(tmp_path, folder)
    (folder / "state.json").unlink()
    (folder / "dataset_dict.json").write_text("[]")
    assert f"SOURCE {folder / 'dataset_dict.json'}: holds no list of splits" in refused(tmp_path, folder)


def test_hdf5_strings(tmp_path: Path) -> None:
    path = write_strings(tmp_path / "a.h5", TEXTS)
    whole = path.read_bytes()
    assert f"SOURCE {path}: not a whole HDF5 file (" in refused(tmp_path, changed(path, cut(0.6)))
    path.write_bytes(replace(b"document 12", b"document \xff2", -1)(whole))
    assert f"SOURCE {path}: document 12: 'text' is not UTF-8 (byte 9)" in refused(tmp_path, path)
