"""Where a source is cut into parts does not show: every format, cut as small as it can be."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainwright.config.errors import UserError
from trainwright.storage.building.parts import Part, Vocabulary, cut_inputs
from trainwright.storage.building.sources import Selection, open_sources
from trainwright.storage.tokens.hdf5_export import export_hdf5
from trainwright.storage.tokens.store import read_info

from .files import TEXTS, WRITERS, build, contents, json_lines, write_pair

TEXTS_OF_ALL_SIZES = [*TEXTS, *(f"text {number} " * number for number in range(40))]
NOT_CUT = ("gzip", "zstd", "categories")  # the last has one row group
Cut = Callable[[int], None]


@pytest.fixture
def cut_at(monkeypatch: pytest.MonkeyPatch) -> Cut:
    """Sets how many bytes a part has."""

    def set_bytes(size: int) -> None:
        monkeypatch.setattr("trainwright.storage.building.parts.MIN_PART_BYTES", size)
        monkeypatch.setattr("trainwright.storage.building.parts.MAX_PART_BYTES", size)

    return set_bytes


def parts_of(source: Path) -> list[Part]:
    return cut_inputs(open_sources([source], Selection()), Vocabulary(300, 0))


@pytest.mark.parametrize("kind", WRITERS)
def test_records(kind: str, tmp_path: Path, cut_at: Cut) -> None:
    source = WRITERS[kind](tmp_path, TEXTS_OF_ALL_SIZES)
    whole = build(tmp_path / "whole.zarr", source, vocab_size=300)
    for size in (1, 700, 5000):
        cut_at(size)
        parts = parts_of(source)
        assert len(parts) == 1 if kind in NOT_CUT else len(parts) > (9 if size == 1 else 1)
        store = build(tmp_path / f"{size}.zarr", source, vocab_size=300, workers=1)
        assert read_info(store) == read_info(whole)


def test_text_files_and_small_files_come_together(tmp_path: Path, cut_at: Cut) -> None:
    for number in range(100):
        (tmp_path / f"{number:03}.txt").write_text("x" * 100)
        (tmp_path / f"{number:03}.jsonl").write_bytes(json_lines(["x" * 50]))
    cut_at(1000)
    for kind in ("text", "jsonl"):
        parts = cut_inputs(open_sources([tmp_path], Selection(), kind), Vocabulary(300, 0))
        assert all(9 <= len(part.slices) <= 15 for part in parts[:-1])
        names = [each.path for part in parts for each in part.slices]
        assert names == sorted(names)
        assert len(names) == {"text": 200, "jsonl": 100}[kind]


@pytest.mark.parametrize("kind", ["megatron", "hdf5"])
def test_token_ids(kind: str, tmp_path: Path, rng: random.Random, cut_at: Cut) -> None:
    (tmp_path / "words.txt").write_text("some words to make pairs of " * 50)
    tokenizer = build(tmp_path / "words.zarr", tmp_path / "words.txt", vocab_size=270) / "tokenizer"
    documents = [
        [[rng.randrange(1, 265) for _ in range(rng.choice([0, 1, 9]))] for _ in range(rng.randrange(3))]
        for _ in range(60)
    ]
    documents += [[[*range(1, 10)]]] * 40  # at least 720 bytes, so that a cut at 100 makes parts whatever the seed
    source = write_pair(tmp_path / "pair", documents)
    whole = build(tmp_path / "whole.zarr", source, tokenizer=tokenizer)
    if kind == "hdf5":
        source = tmp_path / "pair.h5"
        export_hdf5(whole, source, lambda done, total: None)
    for size in (2, 100):
        cut_at(size)
        assert len(parts_of(source)) > 4
        store = build(tmp_path / f"{size}.zarr", source, tokenizer=tokenizer, workers=1)
        assert read_info(store) == read_info(whole)
        flat = [[token for sequence in document for token in sequence] for document in documents]
        assert contents(store)[0] == [[*tokens, 0] for tokens in flat]


def test_a_mistake_has_its_place_in_the_file(tmp_path: Path, cut_at: Cut) -> None:
    """Not its place in the part."""
    lines = json_lines(TEXTS_OF_ALL_SIZES).splitlines(keepends=True)
    lines[30] = b'{"text": null}\n'
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    documents = [[[1, 2]]] * 30
    documents[21] = [[1, 999]]
    write_pair(tmp_path / "pair", documents)
    (tmp_path / "words.txt").write_text("some words to make pairs of " * 50)
    tokenizer = build(tmp_path / "words.zarr", tmp_path / "words.txt", vocab_size=270) / "tokenizer"
    cut_at(10)
    with pytest.raises(UserError, match=r"a\.jsonl: line 31: 'text' is null"):
        build(tmp_path / "no.zarr", tmp_path / "a.jsonl", tokenizer=tokenizer, workers=1)
    with pytest.raises(UserError, match=r"pair\.bin: document 21: token id 999"):
        build(tmp_path / "no.zarr", tmp_path / "pair", tokenizer=tokenizer, workers=1)


def test_lines_are_cut_at_their_ends(tmp_path: Path, rng: random.Random, cut_at: Cut) -> None:
    """Whatever the lengths, also of empty lines, and without a newline at the end."""
    for _ in range(30):
        lines = [b"x" * rng.choice([0, 0, 1, 5, 40]) for _ in range(rng.randrange(1, 40))]
        data = b"\n".join(lines)
        (tmp_path / "a.jsonl").write_bytes(data)
        cut_at(rng.randrange(1, 30))
        slices = [each for part in parts_of(tmp_path / "a.jsonl") for each in part.slices]
        borders = [each.start for each in slices[1:]]
        assert [each.stop for each in slices] == [*borders, None]
        assert borders == sorted(set(borders))
        assert all(data[place - 1 : place] == b"\n" for place in borders)
        assert np.diff([0, *borders, len(data)]).min() > 0 or not data
