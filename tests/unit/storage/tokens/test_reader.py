"""The reader: any range, samples, document beginnings, and damage found when it is touched."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainwright.config.errors import FoundBad, UserError
from trainwright.storage.tokens.reader import open_store

Make = Callable[..., Path]


def flip(path: Path, place: int) -> None:
    """Flip the lowest bit of one byte; a place below 0 counts from the end."""
    with path.open("r+b") as file:
        file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_ranges_and_samples_are_slices_of_the_whole(make_store: Make, rng: random.Random, compression: str) -> None:
    store = open_store(make_store(compression=compression))
    whole = store.read(0, store.num_tokens).astype(np.int64)
    for _ in range(50):
        low, high = sorted(rng.choices(range(store.num_tokens + 1), k=2))
        assert np.array_equal(store.read(low, high), whole[low:high])
    length = 50
    numbers = np.array(rng.choices(range((store.num_tokens - 1) // length), k=30))
    expected = [whole[number * length : number * length + length + 1] for number in numbers]
    samples = store.samples(numbers, length)
    assert samples.dtype == np.int64
    assert np.array_equal(samples, expected)
    begins = np.zeros(len(whole), bool)
    begins[store.document_index.within(0, len(whole))] = True
    expected = [begins[number * length : number * length + length + 1] for number in numbers]
    assert np.array_equal(store.starts(numbers, length), expected)


def test_a_range_outside_the_store_is_our_fault(make_store: Make) -> None:
    store = open_store(make_store())
    with pytest.raises(ValueError, match="not within"):
        store.read(0, store.num_tokens + 1)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_flipped_bit_is_found_when_its_chunk_is_touched(make_store: Make, compression: str) -> None:
    path = make_store(compression=compression)
    flip(path / "c" / "1", 100)
    store = open_store(path)
    store.read(0, 2048)
    with pytest.raises(FoundBad, match=r"c/1: inner chunk 0 fails its crc32c"):
        store.read(2040, 2050)


def test_a_damaged_index_is_found_at_once(make_store: Make) -> None:
    path = make_store()
    flip(path / "c" / "0", -10)
    with pytest.raises(FoundBad, match=r"c/0: its index fails its crc32c"):
        open_store(path)


def test_a_truncated_or_missing_file_is_found_at_once(make_store: Make) -> None:
    path = make_store()
    data = (path / "c" / "1").read_bytes()
    (path / "c" / "1").write_bytes(data[:-7])
    with pytest.raises(FoundBad, match=r"c/1: truncated \(\d+ bytes instead of \d+\)"):
        open_store(path)
    (path / "c" / "1").unlink()
    with pytest.raises(FoundBad, match=r"c/1: missing"):
        open_store(path)
    (path / "c" / "1").write_bytes(data)
    (path / "documents" / "c" / "0").unlink()
    with pytest.raises(FoundBad, match=r"documents/c/0: missing"):
        open_store(path)


def test_a_damaged_zarr_json_is_found_at_once(make_store: Make) -> None:
    path = make_store()
    text = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(text.replace('"generation": 1', '"generation": 2'))
    with pytest.raises(FoundBad, match=r"zarr\.json: its text was changed"):
        open_store(path)
    (path / "zarr.json").write_text(text[:50])
    with pytest.raises(FoundBad, match=r"zarr\.json: not JSON"):
        open_store(path)


@pytest.mark.parametrize("text", [None, "{}", "[]", '{"attributes": {"trainwright": {"format_version": 99}}}'])
def test_what_is_no_store_is_the_users_mistake(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "zarr.json").write_text(text)
    with pytest.raises(UserError) as caught:
        open_store(tmp_path)
    assert not isinstance(caught.value, FoundBad)
    assert str(tmp_path) in str(caught.value)
