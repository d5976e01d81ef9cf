"""Streams of token ids: nanoGPT's, and those with llm.c's header; documents are parted by the end-of-document token."""

import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainwright.config.errors import UserError

from .files import build, contents

DOCUMENTS = [[5, 6, 7], [], [9], [8] * 50, [3]]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A tokenizer of 270 tokens at most, whose end-of-document token is 0."""
    (tmp_path / "words.txt").write_text("some words to make pairs of " * 50)
    return build(tmp_path / "words.zarr", tmp_path / "words.txt", vocab_size=270) / "tokenizer"


def header(tokens: int, magic: int = 20240520, version: int = 1) -> bytes:
    return struct.pack("<3i", magic, version, tokens) + bytes(1012)


def after(documents: list[list[int]]) -> list[int]:
    """As nanoGPT writes them."""
    return [token for document in documents for token in (*document, 0)]


def before(documents: list[list[int]]) -> list[int]:
    """As llm.c and modded-nanogpt write them."""
    return [token for document in documents for token in (0, *document)]


@pytest.mark.parametrize("stream", [after(DOCUMENTS), after(DOCUMENTS)[:-1], before(DOCUMENTS)])
@pytest.mark.parametrize("block", [1, 3, 1 << 20])
@pytest.mark.parametrize("part_bytes", [2, 50, 1 << 20])
def test_documents(
    stream: list[int], block: int, part_bytes: int, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is there once, whether it stood after, before or, as of a stream that is cut there, not at all."""
    monkeypatch.setattr("trainwright.storage.building.inputs.nanogpt._BLOCK", block)
    for name in ("MIN_PART_BYTES", "MAX_PART_BYTES"):
        monkeypatch.setattr(f"trainwright.storage.building.parts.{name}", part_bytes)
    ids = np.array(stream, "<u2").tobytes()
    (tmp_path / "plain.bin").write_bytes(ids)
    (tmp_path / "headed.bin").write_bytes(header(len(stream)) + ids)
    for name, kind in (("plain.bin", "nanogpt"), ("headed.bin", "auto")):
        store = build(tmp_path / f"{name}.zarr", tmp_path / name, tokenizer=tokenizer, format=kind, workers=1)
        assert contents(store)[0] == [[*document, 0] for document in DOCUMENTS]


def test_a_large_vocabulary_has_ids_of_32_bits(tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "llama.bin").write_bytes(header(4, 20240801, 7) + np.array([1, 2, 0, 3], "<u4").tobytes())
    store = build(tmp_path / "s.zarr", tmp_path / "llama.bin", tokenizer=tokenizer)
    assert contents(store)[0] == [[1, 2, 0], [3, 0]]


def test_a_folder_of_them(tokenizer: Path, tmp_path: Path, rng: random.Random) -> None:
    """As modded-nanogpt's data lies: recognised by the magic number, in order, beside a README."""
    folder = tmp_path / "fineweb"
    folder.mkdir()
    (folder / "README.md").write_text("tokens")
    for number in range(3):
        ids = [0, number + 1, *rng.choices(range(1, 200), k=9)]
        (folder / f"fineweb_train_{number:06}.bin").write_bytes(header(11) + np.array(ids, "<u2").tobytes())
    documents = contents(build(tmp_path / "s.zarr", folder, tokenizer=tokenizer))[0]
    assert [document[0] for document in documents] == [1, 2, 3]


def damaged(data: bytes, tokenizer: Path, tmp_path: Path, **options: Any) -> str:
    (tmp_path / "a.bin").write_bytes(data)
    with pytest.raises(UserError) as caught:
        build(tmp_path / "no.zarr", tmp_path / "a.bin", tokenizer=tokenizer, **options)
    assert not (tmp_path / "no.zarr").exists()
    assert caught.value.where == f"SOURCE {tmp_path / 'a.bin'}"
    return caught.value.problem


def test_damage_is_named_by_its_byte(tokenizer: Path, tmp_path: Path) -> None:
    ids = np.array([5, 6, 0, 7], "<u2").tobytes()
    cases = {
        (header(4) + ids)[:500]: "byte 500: cut in its header",
        (header(4) + ids)[:-1]: "byte 1031: 1031 bytes, but its header means 1032",
        header(4) + ids + b"\0": "byte 1032: 1033 bytes, but its header means 1032",
        header(4, version=3) + ids: "byte 4: version 3 of magic 20240520, not 1 of magic",
        header(4) + np.array([5, 6, 999, 7], "<u2").tobytes(): "byte 1028: token id 999 is not one of",
    }
    for data, problem in cases.items():
        assert problem in damaged(data, tokenizer, tmp_path)
    assert "byte 8: 1 bytes are no whole id of 2" in damaged(ids + b"\1", tokenizer, tmp_path, format="nanogpt")
    assert "byte 2: token id 300 is" in damaged(
        np.array([5, 300], "<u2").tobytes(), tokenizer, tmp_path, format="nanogpt"
    )
    assert "byte 0: empty" in damaged(b"", tokenizer, tmp_path, format="nanogpt")


def test_it_needs_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\1\0")
    with pytest.raises(UserError, match=r"--tokenizer: not given, and .*a\.bin holds token ids alone"):
        build(tmp_path / "no.zarr", tmp_path / "a.bin", format="nanogpt")
