"""The index of documents, mapped and plainly read, against NumPy's search; and shards mapped many at a time."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trainwright.config.errors import FoundBad
from trainwright.storage.tokens import _gather
from trainwright.storage.tokens.documents import DocumentIndex
from trainwright.storage.tokens.framing import ShardShape
from trainwright.storage.tokens.reader import TokenStore, open_store
from trainwright.storage.tokens.store import StoreInfo, write_info
from trainwright.storage.tokens.writer import DocumentWriter, write_shard

Make = Callable[..., Path]
Waits = Callable[[bool], None]
Indexed = tuple[NDArray[np.int64], StoreInfo]

each_way = pytest.mark.parametrize("max_mapped", [0, 1, 2, 64], ids=["plain", "one", "two", "all"])


@pytest.fixture
def indexed(tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> Indexed:
    """Where documents begin in a store that has only their index, in small chunks and shards, and what it says."""
    chunk = rng.choice([1, 2, 4, 16])
    monkeypatch.setattr("trainwright.storage.tokens.index_writer.INDEX_CHUNK", chunk)
    monkeypatch.setattr("trainwright.storage.tokens.index_writer.INDEX_SHARD", chunk * rng.choice([1, 3, 8]))
    count = rng.choice([1, 2, 50, 400, 400])
    longest = rng.choice([1, 10, 10**9])  # of one token each too, or as unevenly long as can be
    lengths = [max(1, int(longest ** rng.random())) for _ in range(count)]
    starts = np.cumsum([0, *lengths])
    writer = DocumentWriter(tmp_path)
    writer.append(starts[:-1].astype(np.uint64))
    writer.finish()
    info = StoreInfo(
        tokens=int(starts[-1]),
        documents=count,
        dtype="uint16",
        vocab_size=257,
        tokenizer_fingerprint="0" * 64,
        end_of_document=0,
        chunk_tokens=64,
        shard_tokens=128,
        compression="none",
        generation=1,
        size_bytes=0,
        inventory_bytes=0,
        inventory_digest="0" * 64,
    )
    return starts[:-1], info


def with_shards(store: TokenStore, folder: Path, chunk_tokens: int, shard_tokens: int) -> Path:
    """The same store in smaller chunks and shards than can be asked for."""
    info = replace(store.info, chunk_tokens=chunk_tokens, shard_tokens=shard_tokens)
    (folder / "c").mkdir(parents=True)
    shape = ShardShape(info.dtype, info.vocab_size, chunk_tokens, shard_tokens, "none")
    tokens = store.read(0, store.num_tokens)
    for number, start in enumerate(range(0, len(tokens), shard_tokens)):
        write_shard(folder, number, shape, [tokens[start : start + shard_tokens]])
    documents = DocumentWriter(folder)
    documents.append(store.document_index.get(0, info.documents))
    documents.finish()
    write_info(folder, info)
    return folder


@each_way
def test_lookups_are_those_of_numpy(tmp_path: Path, rng: random.Random, indexed: Indexed, max_mapped: int) -> None:
    starts, info = indexed
    if rng.random() < 0.5:  # an earlier generation has the first of them only
        count = rng.randrange(1, info.documents + 1)
        end = int(starts[count]) if count < len(starts) else info.tokens
        starts, info = starts[:count], replace(info, documents=count, tokens=end)
    index = DocumentIndex(tmp_path, info, max_mapped)
    near = [token + step for token in rng.choices(starts.tolist(), k=20) for step in (-1, 0, 1)]
    tokens = np.array([token for token in [*near, *rng.choices(range(info.tokens), k=20)] if 0 <= token < info.tokens])
    limit, width = rng.randrange(1, 20), min(info.tokens, rng.choice([1, 7, 300]))
    padded = np.append(starts, np.full(limit, info.tokens))
    after = np.searchsorted(starts, tokens, "right")
    assert index.following(tokens, limit).tolist() == padded[after[:, None] + np.arange(limit)].tolist()
    for token in tokens.tolist():
        assert index.document_at(token) == np.searchsorted(starts, token, "right") - 1
        stop = rng.randrange(token, info.tokens + 1)
        assert index.within(token, stop).tolist() == starts[(starts >= token) & (starts < stop)].tolist()
    begins = tokens[tokens <= info.tokens - width]
    marks = index.marks(begins, width)
    for start, row in zip(begins.tolist(), marks, strict=True):
        assert (np.flatnonzero(row) + start).tolist() == starts[(starts >= start) & (starts < start + width)].tolist()
    index.close()
    assert f"{tmp_path}/documents" not in Path("/proc/self/maps").read_text()


@each_way
def test_a_damaged_chunk_of_the_index_is_named(tmp_path: Path, indexed: Indexed, max_mapped: int) -> None:
    info = indexed[1]
    shard = tmp_path / "documents" / "c" / "0"
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    with pytest.raises(FoundBad, match=r"documents/c/0: inner chunk 0 fails its crc32c"):
        DocumentIndex(tmp_path, info, max_mapped).within(0, 1)
    shard.unlink()
    with pytest.raises(FoundBad, match=r"documents/c/0: missing"):
        DocumentIndex(tmp_path, info, max_mapped).within(0, 1)


def test_more_shards_than_may_be_mapped_however_many_a_sample_spans(
    make_store: Make, tmp_path: Path, rng: random.Random
) -> None:
    """What is let go of many maps at a time is never what the sample at hand still needs."""
    path = with_shards(open_store(make_store()), tmp_path / "small", 16, 64)
    whole = open_store(path).read(0, open_store(path).num_tokens).astype(np.int64)
    for _ in range(6):
        most, length = rng.choice([1, 2, 33, 60, 200]), rng.choice([1, 63, 64, 65, 400, 2800])
        store = open_store(path, max_mapped=most)
        numbers = np.array(rng.choices(range((store.num_tokens - 1) // length), k=rng.choice([1, 16, 40])))
        expected = [whole[number * length : number * length + length + 1] for number in numbers.tolist()]
        assert np.array_equal(store.samples(numbers, length), expected), (most, length)
        mapped = Path("/proc/self/maps").read_text().count(f"{path}/c/")
        assert mapped <= max(most, (length + 1) // 64 + 2)
        store.close()


def test_exchanged_shards_of_long_documents_are_noticed(make_store: Make, tmp_path: Path, rng: random.Random) -> None:
    """No two documents begin in one chunk."""
    (tmp_path / "long").mkdir()
    for number in range(40):
        text = "".join(rng.choices("xyz ", k=rng.randrange(300, 700)))
        (tmp_path / "long" / f"{number:03}").write_text(text)
    built = open_store(make_store(source=tmp_path / "long", vocab_size=257))
    path = with_shards(built, tmp_path / "small", 256, 2048)
    info = open_store(path).info
    first, second = rng.sample(range(info.num_shards - 1), 2)
    one, other = (path / "c" / str(number) for number in (first, second))
    one.rename(path / "beside")
    other.rename(one)
    (path / "beside").rename(other)
    for shard in (first, second):
        with pytest.raises(FoundBad, match=rf"c/{shard}: documents do not end in it where the index says"):
            open_store(path).samples(np.array([-(-shard * info.shard_tokens // 64)]), 64)


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], Waits]:
    """Shows how often the system is told what comes, and lets reads say that they waited for a disk."""
    calls, waits = [0], [False]
    gather, announce = _gather.gather, _gather.announce

    def told(*arguments: Any) -> tuple[int, int, int, int]:
        calls[0] += 1
        return announce(*arguments)

    def waited(*arguments: Any) -> tuple[int, int, int, int]:
        return (*gather(*arguments)[:3], int(waits[0]))

    monkeypatch.setattr("trainwright.storage.tokens.shard_map._LEAST_TOLD", 8)
    monkeypatch.setattr("trainwright.storage.tokens.shard_map._MOST_TOLD", 128)
    monkeypatch.setattr(_gather, "announce", told)
    monkeypatch.setattr(_gather, "gather", waited)
    return calls, lambda now: waits.__setitem__(0, now)


def test_the_system_is_told_what_comes_while_pages_are_waited_for(
    make_store: Make, announced: tuple[list[int], Waits]
) -> None:
    calls, set_waits = announced
    store, out = open_store(make_store()), np.empty((1, 65), np.int64)
    store.samples_into(np.array([0]), out)  # its shard is mapped, so that each call is one

    def batches(count: int) -> int:
        before = calls[0]
        for _ in range(count):
            store.will_need(np.array([0]), out)
            store.samples_into(np.array([0]), out)
        return calls[0] - before

    assert batches(20) == 8
    set_waits(True)
    assert batches(20) == 19, "one waits before it is noticed"
    set_waits(False)
    assert batches(50) == 32, "it was wrong to leave it out"
    for _ in range(2):
        set_waits(True)
        assert batches(20) == 19
        set_waits(False)
        assert batches(200) == 128, "no more than that"
