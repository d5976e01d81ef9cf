"""Damaged files of token ids are named with chunk, byte, sequence or document, and nothing is left of the build."""

import random
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from trainwright.config.errors import UserError
from trainwright.storage.tokens.hdf5_export import export_hdf5

from .damage import TEXTS, Damage, changed, cut, cut_by, flip, refused, replace
from .files import build, contents, json_lines, write_pair


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "t.jsonl").write_bytes(json_lines(TEXTS))
    return build(tmp_path / "t.zarr", tmp_path / "t.jsonl", vocab_size=300)


def test_hdf5_tokens(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainwright.storage.tokens.hdf5_layout.CHUNK", 256)
    path = tmp_path / "a.h5"
    export_hdf5(store, path, lambda done, total: None)
    whole = path.read_bytes()
    with h5py.File(path) as file:
        tokens = file["tokens"].id.get_chunk_info(1)
        documents = file["documents"].id.get_chunk_info(0)
        fingerprint = file.attrs["tokenizer_fingerprint"].encode()
    for change, words in (
        (flip(tokens.byte_offset + 9), "tokens 256 to 511: damaged ("),
        (flip(documents.byte_offset + 9), "documents 0 to 39: damaged ("),
        (replace(b"TokenizerFast", b"TokenizerFist"), "fails its SHA-256"),
        (replace(fingerprint, fingerprint[::-1]), "does not have the fingerprint that the file says"),
        (cut(0.8), "not a whole HDF5 file ("),
    ):
        path.write_bytes(change(whole))
        message = refused(tmp_path, path, vocab_size=None)
        assert message.startswith(f"SOURCE {path}: ")
        assert words in message


def test_no_flipped_bit_of_hdf5_passes_unseen(store: Path, tmp_path: Path, rng: random.Random) -> None:
    """Where a build succeeds all the same, the store is the same."""
    path = tmp_path / "a.h5"
    export_hdf5(store, path, lambda done, total: None)
    whole, expected = path.read_bytes(), contents(store)
    seen: list[str] = []
    for number in range(60):
        place = rng.randrange(len(whole))
        path.write_bytes(flip(place)(whole))
        try:
            back = build(tmp_path / f"{number}.zarr", path)
        except UserError as error:
            seen.append(str(error))
        else:
            assert contents(back) == expected, place
    assert len(seen) > 20
    assert all(str(path) in message for message in seen)


@pytest.mark.parametrize(
    ("ending", "change", "words"),
    [
        (".bin", cut_by(3), "byte 21: 21 bytes, but {0}.idx describes 24; the .bin is cut, or the .idx is of"),
        (".bin", lambda data: data + b"\0", "byte 24: 25 bytes, but {0}.idx describes 24"),
        (".idx", cut(0), "byte 0: begins with b''"),
        (".idx", cut(0.1), "byte 12: cut in its header of 34 bytes"),
        (".idx", cut_by(1), "byte 125: 125 bytes, but its header means 126"),
        (".idx", lambda data: data + b"\0" * 5, "byte 126: holds sequence modes"),
        (".idx", flip(3), "byte 0: begins with b'MMIEIDX"),
        (".idx", flip(9), "byte 9: version 0, not 1"),
        (".idx", lambda data: data[:17] + b"\x07" + data[18:], "byte 17: dtype code 7 is not one of token ids"),
        (".idx", flip(17), "byte 17: dtype code 9"),
        (".idx", flip(38), "sequence 2: length 3 at byte 14 does not fit its neighbours"),
        (".idx", flip(70), "sequence 2: length 3 at byte "),
        (".idx", lambda data: data[:110] + b"\x01" + data[111:], "document 2: begins at sequence 1, which is out"),
        (".idx", flip(94), "document 0: begins at sequence 1, which is out of order"),
        (".idx", flip(118), "document 3: ends at sequence 4 of 5"),
    ],
)
def test_a_megatron_pair(ending: str, change: Damage, words: str, store: Path, tmp_path: Path) -> None:
    prefix = write_pair(tmp_path / "c", [[[1, 2, 3], [4, 5, 6, 7]], [[8, 9, 10]], [[1], [2]]])
    path = changed(prefix.with_suffix(ending), change)
    message = refused(tmp_path, prefix, vocab_size=None, tokenizer=store / "tokenizer")
    assert message.startswith(f"SOURCE {path}: ")
    assert words.format(prefix) in message


def test_half_a_pair_and_the_index_of_another(store: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"vocab_size": None, "tokenizer": store / "tokenizer"}
    prefix = write_pair(tmp_path / "c", [[[1, 2, 3]]])
    other = write_pair(tmp_path / "d", [[[1, 2, 3, 4]]])
    index = prefix.with_suffix(".idx")
    index.write_bytes(other.with_suffix(".idx").read_bytes())
    assert f"{prefix}.bin: byte 6: 6 bytes, but {index} describes 8" in refused(tmp_path, prefix, **options)
    index.unlink()
    for source in (prefix, prefix.with_suffix(".bin")):
        assert f"SOURCE {index}: no such file, and {prefix}.bin needs it" in refused(tmp_path, source, **options)
    write_pair(tmp_path / "f", [[[1, 2]]], np.float32)
    assert "byte 17: dtype code 7" in refused(tmp_path, tmp_path / "f.idx", **options)
