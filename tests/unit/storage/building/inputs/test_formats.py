"""Every format of text against the same texts: the same documents, token for token, and the same tokenizer."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from trainwright.config.errors import UserError
from trainwright.storage.tokens.store import read_info

from .files import TEXTS, WRITERS, build, contents, json_lines, write_strings


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the texts as files of their own."""
    folder = tmp_path_factory.mktemp("reference")
    (folder / "text").mkdir()
    for number, text in enumerate(TEXTS):
        (folder / "text" / f"{number:03}.txt").write_bytes(text.encode())
    return build(folder / "store.zarr", folder / "text", vocab_size=320)


def test_the_reference_is_the_tokenizers(reference: Path) -> None:
    tokenizer = Tokenizer.from_file(str(reference / "tokenizer" / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    expected = [[*tokenizer.encode(text, add_special_tokens=False).ids, 0] for text in TEXTS]
    assert contents(reference)[0] == expected
    assert [tokenizer.decode(ids[:-1], skip_special_tokens=False) for ids in expected] == TEXTS


@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_texts_give_the_same_store(kind: str, reference: Path, tmp_path: Path) -> None:
    source = WRITERS[kind](tmp_path, TEXTS)
    store = build(tmp_path / "store.zarr", source, vocab_size=320)
    assert contents(store) == contents(reference)
    assert read_info(store) == read_info(reference), "files, histograms and digests too"


def test_sources_of_all_formats_in_the_order_given(reference: Path, tmp_path: Path) -> None:
    given = [WRITERS[kind](tmp_path, [f"this is {kind}", ""]) for kind in reversed(WRITERS) if kind != "saved"]
    (tmp_path / "a.txt").write_text("a text")
    given.insert(4, tmp_path / "a.txt")
    store = build(tmp_path / "store.zarr", *given, tokenizer=reference / "tokenizer")
    tokenizer = Tokenizer.from_file(str(reference / "tokenizer" / "tokenizer.json"))
    texts = [tokenizer.decode(ids[:-1]) for ids in contents(store)[0]]
    expected = [text for kind in reversed(WRITERS) if kind != "saved" for text in (f"this is {kind}", "")]
    assert texts == [*expected[:8], "a text", *expected[8:]]


@pytest.mark.parametrize("kind", ["jsonl", "gzip", "parquet", "stream"])
def test_a_nul_is_kept_where_a_format_can_hold_it(kind: str, reference: Path, tmp_path: Path) -> None:
    source = WRITERS[kind](tmp_path, ["before\0after", "next"])
    store = build(tmp_path / "store.zarr", source, tokenizer=reference / "tokenizer")
    tokenizer = Tokenizer.from_file(str(reference / "tokenizer" / "tokenizer.json"))
    assert [tokenizer.decode(ids[:-1]) for ids in contents(store)[0]] == ["before\0after", "next"]


def test_another_field(reference: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(json_lines(TEXTS).replace(b'"text": ', b'"body": '))
    pq.write_table(pa.table({"body": TEXTS, "text": [None] * len(TEXTS)}), tmp_path / "a.parquet")
    write_strings(tmp_path / "a.h5", TEXTS, "group/body")
    for name, field in (("a.jsonl", "body"), ("a.parquet", "body"), ("a.h5", "group/body")):
        store = build(tmp_path / f"{name}.zarr", tmp_path / name, tokenizer=reference / "tokenizer", field=field)
        assert contents(store)[0] == contents(reference)[0]
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match="--field: 'body', but no source has fields"):
        build(tmp_path / "no.zarr", tmp_path / "a.txt", field="body")


def test_a_tokenizer_is_trained_on_a_sample_of_much_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["aaaa bbbb"] * 40
    texts[1::2] = ["cccc dddd"] * 20
    (tmp_path / "a.jsonl").write_bytes(json_lines(texts))
    half = -(-os.stat(tmp_path / "a.jsonl").st_size // 2)
    monkeypatch.setattr(
        "trainwright.storage.building.build_tokenizer._TRAINING_BYTES", half
    )  # so every second one is taken
    store = build(tmp_path / "store.zarr", tmp_path / "a.jsonl", vocab_size=400)
    vocabulary = json.loads((store / "tokenizer" / "tokenizer.json").read_text())["model"]["vocab"]
    assert "aaaa" in vocabulary
    assert "cccc" not in vocabulary
    assert len(contents(store)[0]) == 40
