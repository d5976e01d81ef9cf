"""Token ids come in as they are: Megatron's pairs, also as megatron-core writes them, and our own HDF5 files."""

import json
import random
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from trainwright.config.errors import UserError
from trainwright.storage.building.inputs.base import cut
from trainwright.storage.tokens.hdf5_export import export_hdf5
from trainwright.storage.tokens.reader import open_store
from trainwright.storage.tokens.store import read_info

from .files import TEXTS, build, contents, write_pair

DOCUMENTS: list[list[list[int]]] = [[[5, 6, 7]], [[9], [], [8, 8]], [[]], [[3, 0]], [[0]], [[4, 0, 4]], []]
FLAT = [[5, 6, 7, 0], [9, 8, 8, 0], [0], [3, 0], [0], [4, 0, 4, 0], [0]]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A tokenizer of 300 tokens whose end-of-document token is 0."""
    (tmp_path / "words.txt").write_text("some words to make pairs of " * 50)
    return build(tmp_path / "words.zarr", tmp_path / "words.txt", vocab_size=270) / "tokenizer"


def test_blocks_are_cut_into_documents_wherever_they_end(rng: random.Random) -> None:
    for _ in range(200):
        tokens = np.arange(rng.randrange(40))
        ends = [*sorted(rng.choices(range(len(tokens) + 1), k=rng.randrange(8))), len(tokens)]
        size = rng.randrange(1, 12)
        blocks = [tokens[start : start + size] for start in range(0, len(tokens), size)]
        found: list[list[int]] = [[]]
        for piece in cut(blocks, ends):
            found[-1] += piece.tokens.tolist()
            if piece.last:
                found.append([])
        assert found.pop() == []
        assert found == [tokens[low:high].tolist() for low, high in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
@pytest.mark.parametrize("block", [2, 1 << 20])
def test_a_megatron_pair(
    dtype: Any, block: int, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents of several sequences, empty ones, ones that end with the end-of-document token, one that holds it."""
    monkeypatch.setattr("trainwright.storage.building.inputs.megatron._BLOCK", block * np.dtype(dtype).itemsize)
    write_pair(tmp_path / "corpus", DOCUMENTS, dtype)
    store = build(tmp_path / "store.zarr", tmp_path / "corpus", tokenizer=tokenizer)
    assert contents(store)[0] == FLAT


@pytest.mark.parametrize("given", [["c.bin"], ["c.idx"], ["c"], ["c.bin", "c.idx"], ["folder"]])
def test_the_ways_to_name_a_pair(given: list[str], tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for place in (tmp_path, tmp_path / "folder"):
        write_pair(place / "c", DOCUMENTS)
    store = build(tmp_path / "store.zarr", *(tmp_path / name for name in given), tokenizer=tokenizer)
    assert contents(store)[0] == FLAT


def test_pairs_and_texts_in_one_build(tokenizer: Path, tmp_path: Path) -> None:
    for name, documents in (("a", [[[11]]]), ("b", [[[12, 13]]])):
        write_pair(tmp_path / name, documents)
    (tmp_path / "t.txt").write_text("!")
    given = [tmp_path / name for name in ("b.bin", "t.txt", "a.bin", "b.bin")]
    store = build(tmp_path / "store.zarr", *given, tokenizer=tokenizer)
    exclamation = contents(store)[0][1]
    assert contents(store)[0] == [[12, 13, 0], exclamation, [11, 0], [12, 13, 0]]
    assert len(exclamation) == 2


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_what_megatron_core_writes(dtype: Any, tokenizer: Path, tmp_path: Path, rng: random.Random) -> None:
    torch = pytest.importorskip("torch")
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    documents = [
        [rng.choices(range(1, 257), k=rng.randrange(30)) for _ in range(rng.randrange(1, 4))] for _ in range(200)
    ]
    builder = indexed.IndexedDatasetBuilder(str(tmp_path / "core.bin"), dtype=dtype)
    for document in documents:
        for sequence in document:
            builder.add_item(torch.tensor(sequence, dtype=torch.int64))
        builder.end_document()
    builder.finalize(str(tmp_path / "core.idx"))
    store = build(tmp_path / "store.zarr", tmp_path / "core", tokenizer=tokenizer)
    assert contents(store)[0] == [[*chain(*document), 0] for document in documents]
    by_hand = write_pair(tmp_path / "hand", documents, dtype)
    for ending in (".bin", ".idx"):
        assert by_hand.with_suffix(ending).read_bytes() == (tmp_path / f"core{ending}").read_bytes()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of two shards with a trained tokenizer."""
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text[:9000]}) + "\n" for text in TEXTS))
    return build(tmp_path / "a.zarr", tmp_path / "a.jsonl", vocab_size=300, shard_tokens=1024)


def quiet(done: int, total: int) -> None:
    """Progress that shows nothing."""


def test_a_store_through_hdf5_is_the_same_to_the_byte(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    for chunk in (1 << 17, 100):
        monkeypatch.setattr("trainwright.storage.tokens.hdf5_layout.CHUNK", chunk)
        seen.clear()
        export_hdf5(store, tmp_path / f"{chunk}.h5", lambda done, total: seen.append((done, total)))
        assert seen[-1] == (2 * read_info(store).tokens,) * 2
        back = build(tmp_path / f"{chunk}.zarr", tmp_path / f"{chunk}.h5", shard_tokens=1024)
        for path in sorted(store.rglob("*")):
            assert path.is_dir() or path.read_bytes() == (back / path.relative_to(store)).read_bytes(), path
    assert not list(tmp_path.glob(".*"))


def test_hdf5_is_as_documented(store: Path, tmp_path: Path) -> None:
    export_hdf5(store, tmp_path / "a.h5", quiet)
    opened = open_store(store)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["tokens"][:].tolist() == opened.read(0, opened.num_tokens).tolist()
        assert file["documents"][:].tolist() == opened.document_index.within(0, opened.num_tokens).tolist()
        assert (file["tokens"].dtype, file["documents"].dtype) == (np.dtype("<u2"), np.dtype("<u8"))
        assert file["tokens"].fletcher32
        assert file["documents"].fletcher32
        assert dict(file.attrs) == {
            "format": "trainwright tokens",
            "format_version": 1,
            "num_tokens": opened.info.tokens,
            "num_documents": opened.info.documents,
            "vocab_size": opened.info.vocab_size,
            "end_of_document": 0,
            "tokenizer_fingerprint": opened.info.tokenizer_fingerprint,
        }
        for name, dataset in file["tokenizer"].items():
            assert dataset[()].decode() == (store / "tokenizer" / name).read_text()
        assert set(file["tokenizer"]) == {path.name for path in (store / "tokenizer").iterdir()}


def test_the_tokenizer_in_a_file_counts(store: Path, tokenizer: Path, tmp_path: Path) -> None:
    export_hdf5(store, tmp_path / "a.h5", quiet)
    (tmp_path / "t.jsonl").write_text('{"text": "and a text"}\n')
    write_pair(tmp_path / "p", [[[5]]])
    mixed = build(tmp_path / "mixed.zarr", tmp_path / "t.jsonl", tmp_path / "a.h5", tmp_path / "p")
    assert contents(mixed)[0][1:-1] == contents(store)[0]
    assert contents(mixed)[1] == contents(store)[1]
    build(tmp_path / "same.zarr", tmp_path / "a.h5", tokenizer=store / "tokenizer")
    export_hdf5(tokenizer.parent, tmp_path / "words.h5", quiet)
    other = "holds token ids of another tokenizer than"
    for options, sources, message in (
        ({"tokenizer": tokenizer}, ["a.h5"], f"SOURCE .*a.h5: {other} --tokenizer"),
        ({}, ["a.h5", "words.h5"], f"SOURCE .*words.h5: {other} .*a.h5"),
        ({"vocab_size": 300}, ["a.h5"], "--vocab-size: 300, but .*a.h5 holds token ids"),
        ({}, ["t.jsonl", "p"], "--tokenizer: not given, and .*p.bin holds token ids alone"),
    ):
        with pytest.raises(UserError, match=message):
            build(tmp_path / "no.zarr", *(tmp_path / name for name in sources), **options)
    assert not (tmp_path / "no.zarr").exists()


def test_a_token_that_the_tokenizer_does_not_have(tokenizer: Path, tmp_path: Path) -> None:
    for name, token in (("large", 300), ("negative", -1)):
        write_pair(tmp_path / name, [[[1, 2]], [[3], [4, token]]], np.int32)
        with pytest.raises(
            UserError, match=f"{name}.bin: document 1: token id {token} is not one of .* 270; .*--tokeni"
        ):
            build(tmp_path / "store.zarr", tmp_path / name, tokenizer=tokenizer)
    assert not list(tmp_path.glob("*store.zarr*"))
