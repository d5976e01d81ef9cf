"""The reader: any range, samples, document beginnings, and damage found when it is touched."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest

from trainwright.config.errors import FoundBad, UserError
from trainwright.storage.tokens import _frame
from trainwright.storage.tokens.framing import ShardShape
from trainwright.storage.tokens.inventory import take_inventory, write_inventory
from trainwright.storage.tokens.reader import How, TokenStore, open_store
from trainwright.storage.tokens.store import write_info
from trainwright.storage.tokens.verify import check_presence
from trainwright.storage.tokens.writer import DocumentWriter, write_shard

Make = Callable[..., Path]
WAYS: list[tuple[How, str]] = [("map", "none"), ("plain", "none"), ("map", "zstd")]
every_way = pytest.mark.parametrize(("how", "compression"), WAYS, ids=["map", "plain", "zstd"])


def write_wide(store: TokenStore, folder: Path) -> None:
    """The same tokens as ids from 70,000 on, which take 32 bits."""
    folder.mkdir()
    info, vocab_size = store.info, 70_000 + store.info.vocab_size
    shape = ShardShape("uint32", vocab_size, info.chunk_tokens, info.shard_tokens, info.compression)
    (folder / "c").mkdir()
    tokens = store.read(0, store.num_tokens).astype(np.uint32) + 70_000
    pieces = [tokens[start : start + info.shard_tokens] for start in range(0, len(tokens), info.shard_tokens)]
    shards = tuple(write_shard(folder, number, shape, [piece]) for number, piece in enumerate(pieces))
    documents = DocumentWriter(folder)
    documents.append(np.zeros(1, np.uint64))
    documents.finish()
    size, digest = write_inventory(folder, take_inventory(folder, shards, documents.files))
    changes: dict[str, Any] = {"dtype": "uint32", "vocab_size": vocab_size, "documents": 1}
    write_info(folder, replace(info, **changes, inventory_bytes=size, inventory_digest=digest))


def read_all(store: TokenStore) -> None:
    store.read(0, store.num_tokens)


def flip(path: Path, place: int) -> None:
    """Flip the lowest bit of one byte; a place below 0 counts from the end."""
    with path.open("r+b") as file:
        file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


@every_way
def test_ranges_and_samples_are_slices_of_the_whole(
    make_store: Make, rng: random.Random, how: How, compression: str
) -> None:
    store = open_store(make_store(compression=compression), how=how)
    whole = store.read(0, store.num_tokens).astype(np.int64)
    for _ in range(50):
        low, high = sorted(rng.choices(range(store.num_tokens + 1), k=2))
        assert np.array_equal(store.read(low, high), whole[low:high])
    for length in (50, 5000):  # longer than two shards
        numbers = np.array(rng.choices(range((store.num_tokens - 1) // length), k=30))
        slices = [slice(number * length, number * length + length + 1) for number in numbers]
        expected = [whole[each] for each in slices]
        samples = store.samples(numbers, length)
        assert samples.dtype == np.int64
        assert np.array_equal(samples, expected)
        for dtype in (np.uint16, np.uint32, np.int64):
            out = np.full((31, length + 1), 7, dtype)
            store.will_need(numbers, out, np.arange(30, 0, -1))
            store.samples_into(numbers, out, np.arange(30, 0, -1))
            assert np.array_equal(out[:0:-1], expected)
            assert (out[0] == 7).all()
        begins = np.zeros(len(whole), bool)
        begins[store.document_index.within(0, len(whole))] = True
        assert np.array_equal(store.starts(numbers, length), [begins[each] for each in slices])


@every_way
def test_tokens_of_a_large_vocabulary(make_store: Make, how: How, compression: str, tmp_path: Path) -> None:
    store = open_store(make_store(compression=compression), how=how)
    write_wide(store, tmp_path / "wide")
    wide = open_store(tmp_path / "wide", how=how)
    assert wide.read(0, 1).dtype == np.uint32
    assert np.array_equal(wide.read(0, wide.num_tokens), store.read(0, store.num_tokens).astype(np.uint32) + 70_000)
    numbers = np.arange(20)
    assert np.array_equal(wide.samples(numbers, 100), store.samples(numbers, 100) + 70_000)


@every_way
def test_more_shards_than_may_be_held(make_store: Make, rng: random.Random, how: How, compression: str) -> None:
    path = make_store(compression=compression, shard_tokens=1024)
    store = open_store(path, how=how, max_mapped=2, max_decoded=2)
    whole = open_store(path).read(0, store.num_tokens)
    for length in (60, 3000):
        numbers = np.array(rng.choices(range((store.num_tokens - 1) // length), k=40))
        for number, sample in zip(numbers.tolist(), store.samples(numbers, length), strict=True):
            assert np.array_equal(sample, whole[number * length : number * length + length + 1])


def test_maps_are_bounded_and_need_no_open_file(make_store: Make) -> None:
    store = open_store(make_store(shard_tokens=1024), max_mapped=3)
    store.document_index.get(0, 1)  # which has a file open
    files = len(os.listdir("/proc/self/fd"))
    store.samples(np.arange((store.num_tokens - 1) // 100), 100)
    assert Path("/proc/self/maps").read_text().count(f"{store.path}/c/") == 3
    assert len(os.listdir("/proc/self/fd")) == files
    store.close()
    assert f"{store.path}/c/" not in Path("/proc/self/maps").read_text()


@every_way
def test_threads_may_share_a_store(make_store: Make, how: How, compression: str) -> None:
    store = open_store(make_store(compression=compression, shard_tokens=1024), how=how, max_mapped=2, max_decoded=4)
    numbers = np.arange((store.num_tokens - 1) // 40)
    expected = store.samples(numbers, 40)
    with ThreadPoolExecutor(4) as pool:
        for samples in pool.map(lambda _: store.samples(numbers, 40), range(16)):
            assert np.array_equal(samples, expected)


def test_a_range_outside_the_store_is_our_fault(make_store: Make) -> None:
    store = open_store(make_store())
    with pytest.raises(ValueError, match="not within"):
        store.read(0, store.num_tokens + 1)


@every_way
def test_a_flipped_bit_is_found_when_its_chunk_is_touched(make_store: Make, how: How, compression: str) -> None:
    path = make_store(compression=compression)
    flip(path / "c" / "1", 100)
    store = open_store(path, how=how)
    store.read(0, 2048)
    for _ in range(2):  # and again, when it is asked for again
        with pytest.raises(FoundBad, match=r"c/1: inner chunk 0 fails its crc32c"):
            store.read(2040, 2050)
        with pytest.raises(FoundBad, match=r"c/1: inner chunk 0 fails its crc32c"):
            store.samples(np.array([5, 30, 41]), 50)


@every_way
def test_a_damaged_index_is_found_when_its_shard_is_touched(make_store: Make, how: How, compression: str) -> None:
    path = make_store(compression=compression)
    flip(path / "c" / "1", -10)
    store = open_store(path, how=how)
    store.read(0, 2048)
    with pytest.raises(FoundBad, match=r"c/1: its index fails its crc32c"):
        read_all(store)


@every_way
def test_a_truncated_missing_or_forbidden_file_is_named(make_store: Make, how: How, compression: str) -> None:
    path = make_store(compression=compression)
    data = (path / "c" / "1").read_bytes()
    (path / "c" / "1").write_bytes(data[:-7])
    with pytest.raises(FoundBad, match=r"c/1: .*truncated"):
        read_all(open_store(path, how=how))
    with pytest.raises(FoundBad, match=r"c/1: truncated \(\d+ bytes instead of \d+\)"):
        check_presence(open_store(path, how=how))
    (path / "c" / "1").write_bytes(b"")
    with pytest.raises(FoundBad, match=r"c/1: truncated"):
        read_all(open_store(path, how=how))
    (path / "c" / "1").unlink()
    with pytest.raises(FoundBad, match=r"c/1: missing"):
        read_all(open_store(path, how=how))
    (path / "c" / "1").write_bytes(data)
    (path / "documents" / "c" / "0").unlink()
    with pytest.raises(FoundBad, match=r"documents/c/0: missing"):
        open_store(path).starts(np.arange(3), 50)
    (path / "c" / "0").unlink()
    (path / "c" / "0").symlink_to("0")  # not even root can open that
    with pytest.raises(FoundBad, match=r"c/0: cannot be opened \(Too many levels of symbolic links\)"):
        read_all(open_store(path, how=how))


@pytest.mark.parametrize("how", ["map", "plain"])
def test_a_file_that_is_cut_off_while_it_is_open_is_named(make_store: Make, how: How) -> None:
    """A mapped page that is gone raises SIGBUS, which would end the process."""
    path = make_store(shard_tokens=1 << 16)
    store = open_store(path, how=how)
    store.read(0, 1)
    os.truncate(path / "c" / "0", 8192)
    with pytest.raises(FoundBad, match=r"c/0: (inner chunk \d cannot be read any more|truncated: it ends before byte)"):
        store.read(0, store.num_tokens)
    with pytest.raises(FoundBad, match=r"c/0: "):
        store.samples(np.arange(60, 110), 100)
    assert store.read(0, 100).tolist() == store.read(0, 100).tolist()  # what was checked before is still there


def test_a_bus_error_elsewhere_still_ends_the_process(make_store: Make, tmp_path: Path) -> None:
    """The handler is there while tokens are read, and no longer."""
    program = f"""
import mmap, os
from pathlib import Path
from trainwright.storage.tokens.reader import open_store
store = open_store(Path({str(make_store())!r}))
store.read(0, store.num_tokens)
with open({str(tmp_path / "other")!r}, "w+b") as file:
    file.write(bytes(8192)); file.flush()
    other = mmap.mmap(file.fileno(), 8192)
    os.truncate(file.fileno(), 0)
    other[5000]
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -signal.SIGBUS


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


def test_a_store_of_an_earlier_format_is_refused(make_store: Make) -> None:
    path = make_store()
    text = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(text.replace('"format_version": 4', '"format_version": 3'))
    with pytest.raises(UserError, match=r"zarr\.json: format_version 3 is not 4; build the store again"):
        open_store(path)


def test_every_way_of_the_compiled_crc32c(rng: random.Random) -> None:
    """The tables serve processors without the instructions; all against another implementation."""
    for size in [*range(70), 127, 128, 129, 191, 255, 256, 767, 768, 769, 12287, 12288, 32768, 100_001]:
        data = rng.randbytes(size)
        ways = [_frame.crc32c(data, way) for way in (-1, 0, 1, 2)]
        assert {crc for crc in ways if crc is not None} == {google_crc32c.value(data)}, size
        assert ways[1] is not None


@every_way
def test_exchanged_shards_are_noticed_when_they_are_read(
    make_store: Make, tmp_path: Path, rng: random.Random, how: How, compression: str
) -> None:
    """All their chunks are whole, so that crc32c says nothing."""
    (tmp_path / "short").mkdir()
    for number in range(300):
        (tmp_path / "short" / f"{number:03}").write_text("x y" * rng.randrange(1, 30))
    path = make_store(source=tmp_path / "short", vocab_size=257, compression=compression)
    info = open_store(path).info
    first, second = rng.sample(range(info.num_shards - 1), 2)
    one, other = path / "c" / str(first), path / "c" / str(second)
    one.rename(path / "beside")
    other.rename(one)
    (path / "beside").rename(other)
    length = 64
    for shard in (first, second):
        sample = np.array([-(-shard * info.shard_tokens // length)])
        store = open_store(path, how=how)
        with pytest.raises(FoundBad, match=rf"c/{shard}: documents do not end in it where the index says"):
            store.samples(sample, length)
        out = np.zeros((1, length + 1), np.int64)
        with pytest.raises(FoundBad, match=rf"c/{shard}: documents do not end"):
            store.pieces_into(sample * length, np.array([length]), np.array([0]), out)
