"""Any Zarr reader opens a token store: zarr-python and tensorstore read the tokens that our reader reads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr

from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.tokens.reader import open_store

Read = Callable[[Path], Any]


def read_with_zarr(path: Path) -> Any:
    return zarr.open_array(path, mode="r")[:]


def read_with_tensorstore(path: Path) -> Any:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    return tensorstore.open(spec, open=True).result().read().result()


READERS = [pytest.param(read_with_zarr, id="zarr"), pytest.param(read_with_tensorstore, id="tensorstore")]


def build(folder: Path, large_vocabulary: bool, compression: str) -> Path:
    """Three and a half shards of two chunks each, the last chunk not full."""
    (folder / "text").mkdir()
    words = [f"w{(number * 7919) % 70_000}" for number in range(7_000)]
    for number in range(5):
        (folder / "text" / f"{number}.txt").write_text(" ".join(words[number * 1400 : number * 1400 + 1400]))
    options = {"shard_tokens": 2048, "compression": compression, "vocab_size": 400}
    if large_vocabulary:
        vocab = {"</s>": 0, "<unk>": 1, **{f"w{number}": number + 2 for number in range(70_000)}}
        model = {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
        parts = {"version": "1.0", "pre_tokenizer": {"type": "Whitespace"}, "model": model}
        (folder / "tokenizer.json").write_text(json.dumps(parts))
        options["tokenizer"] = folder / "tokenizer.json"
    build_store([folder / "text"], folder / "store.zarr", BuildOptions(**options), lambda *_: None)  # type: ignore[arg-type]
    return folder / "store.zarr"


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("large_vocabulary", [False, True], ids=["uint16", "uint32"])
def test_equal_tokens(tmp_path: Path, read: Read, compression: str, large_vocabulary: bool) -> None:
    path = build(tmp_path, large_vocabulary, compression)
    store = open_store(path)
    tokens = read(path)
    assert tokens.dtype == (np.uint32 if large_vocabulary else np.uint16)
    assert store.info.num_shards >= 4
    assert store.num_tokens % 1024 != 0
    assert np.array_equal(tokens, store.read(0, store.num_tokens))
    starts = read(path / "documents")
    assert np.array_equal(starts, store.document_index.within(0, store.num_tokens))
    assert len(starts) == 5


@pytest.mark.parametrize("read", READERS)
def test_a_flipped_bit_is_noticed(tmp_path: Path, read: Read) -> None:
    path = build(tmp_path, False, "none")
    data = bytearray((path / "c" / "1").read_bytes())
    data[500] ^= 1
    (path / "c" / "1").write_bytes(data)
    with pytest.raises(ValueError, match=r"(?i)checksum|crc|digest"):
        read(path)
