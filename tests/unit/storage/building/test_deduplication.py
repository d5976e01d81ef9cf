"""Which documents are dropped: later equal ones, near ones by their true similarity, whatever parts and workers."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trainwright.config.errors import UserError
from trainwright.storage.building.append import AppendResult, append_store
from trainwright.storage.building.build import BuildOptions, BuildResult, build_store
from trainwright.storage.building.minhash import MinHasher, rows_per_band
from trainwright.storage.tokens.reader import open_store
from trainwright.storage.tokens.tokenizer import open_tokenizer
from trainwright.storage.tokens.verify import verify_store

from ..conftest import quiet
from .same import assert_same

Drop = Callable[..., tuple[list[str], BuildResult]]


@pytest.fixture
def drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drop:
    """Builds from texts, as parts of a few documents, and gives the texts that are kept, and the result."""
    monkeypatch.setattr("trainwright.storage.building.parts.MIN_PART_BYTES", 300)

    def run(texts: list[str], kind: str, name: str = "s.zarr", **options: Any) -> tuple[list[str], BuildResult]:
        (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
        wanted: dict[str, Any] = {"vocab_size": 300, "shard_tokens": 1024, "deduplicate": kind, **options}
        result = build_store([tmp_path / "a.jsonl"], tmp_path / name, BuildOptions(**wanted), quiet)
        assert verify_store(tmp_path / name, lambda done, total: None) == result.info
        store, tokenizer = open_store(tmp_path / name), open_tokenizer(tmp_path / name)
        tokens = store.read(0, store.num_tokens)
        pieces = np.split(tokens, store.document_index.within(1, store.num_tokens))
        return [tokenizer.decode(piece[:-1].tolist()) for piece in pieces], result

    return run


def test_the_first_of_equal_documents_stays(drop: Drop, rng: random.Random) -> None:
    texts = [rng.choice(["", "a", "same", f"text {rng.randrange(40)} " * 9]) for _ in range(300)]
    kept, result = drop(texts, "exact", workers=1)
    assert kept == list(dict.fromkeys(texts))
    assert (result.dropped_exact, result.dropped_near) == (len(texts) - len(kept), 0)
    assert result.info.documents == len(kept)
    expected = {"kind": "exact", "dropped_exact": len(texts) - len(kept), "dropped_near": 0}
    assert result.info.deduplication == expected
    everything, result = drop(texts, "none", "all.zarr", workers=1)
    assert everything == texts
    assert result.info.deduplication is None


def test_buckets_and_workers_do_not_show(
    drop: Drop, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text {rng.randrange(40)} " * 9 for _ in range(200)]
    drop(texts, "exact", "one.zarr", workers=1)
    monkeypatch.setattr("trainwright.storage.building.deduplication._BUCKET_DOCUMENTS", 30)
    drop(texts, "exact", "other.zarr", workers=3)
    assert_same(tmp_path / "one.zarr", tmp_path / "other.zarr")


def _changed(words: list[str], count: int, rng: random.Random) -> list[str]:
    words = words.copy()
    for place in rng.sample(range(len(words)), count):
        words[place] = f"w{rng.randrange(10**6)}"
    return words


def test_near_duplicates(drop: Drop, tmp_path: Path, rng: random.Random) -> None:
    """Copies with a word changed go, whole rewrites stay; the first stays, wherever the copies stand."""
    firsts = [[f"w{rng.randrange(10**6)}" for _ in range(200)] for _ in range(12)]
    copies = [_changed(rng.choice(firsts), 2, rng) for _ in range(40)]
    others = [_changed(words, 120, rng) for words in firsts]
    exact = rng.choices(firsts, k=5)
    rest = [*copies, *others, *exact]
    rng.shuffle(rest)
    texts = [" ".join(words) for words in (*firsts, *rest)]
    kept, result = drop(texts, "near", workers=1, vocab_size=260)
    assert kept == texts[:12] + [text for text in texts[12:] if text.split() in others]
    assert (result.dropped_exact, result.dropped_near) == (5, 40)
    drop(texts, "near", "again.zarr", workers=3, vocab_size=260)
    assert_same(tmp_path / "s.zarr", tmp_path / "again.zarr")
    _, result = drop(texts, "near", "strict.zarr", workers=1, vocab_size=260, near_threshold=0.99)
    assert result.dropped_near < 20, "copies are at about 0.97"
    assert result.info.deduplication is not None
    assert result.info.deduplication["near_threshold"] == 0.99


def _similarity(one: NDArray[Any], other: NDArray[Any]) -> float:
    sets = [{tuple(tokens[place : place + 5]) for place in range(len(tokens) - 4)} for tokens in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_signatures_estimate_the_similarity(rng: random.Random) -> None:
    """Within four standard errors of an estimate by 128 independent hashes, on average within a tenth of one."""
    generator = np.random.default_rng(rng.randrange(1 << 32))
    hasher, errors = MinHasher(0.8), []
    for _ in range(60):
        one = generator.integers(0, 30_000, rng.randrange(100, 3000))
        other = one.copy()
        places = rng.sample(range(len(one)), max(1, int(len(one) * rng.random() * 0.2)))
        other[places] = generator.integers(0, 30_000, len(places))
        true = _similarity(one, other)
        agree = float((hasher.signature(one) == hasher.signature(other)).mean())
        error = (agree - true) / (max(true * (1 - true), 0.01) / 128) ** 0.5
        assert abs(error) < 5
        errors.append(error)
    assert abs(np.mean(errors)) < 0.6
    assert 0.6 < np.std(errors) < 1.5


def test_documents_as_similar_as_the_threshold_share_a_band() -> None:
    for threshold in (0.3, 0.5, 0.8, 0.9, 0.99):
        rows = rows_per_band(threshold)
        assert 1 - (1 - threshold**rows) ** (128 // rows) >= 0.99
    assert rows_per_band(0.9) > rows_per_band(0.5)


def test_documents_shorter_than_a_sequence(drop: Drop) -> None:
    texts = ["", "a", "b", "ab", "abc", "abcd", "abcde", "a", "abcd"]
    kept, result = drop(texts, "near", workers=1, vocab_size=260)
    assert kept == texts[:7]
    assert (result.dropped_exact, result.dropped_near) == (2, 0)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"deduplicate": "some"}, "--deduplicate"),
        ({"near_threshold": 1.0}, "--near-threshold"),
        ({"near_threshold": 0.1}, "--near-threshold"),
        ({"workers": 0}, "--workers"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, Any], where: str) -> None:
    with pytest.raises(UserError) as caught:
        build_store([tmp_path], tmp_path / "s.zarr", BuildOptions(**options), quiet)
    assert caught.value.where == where


Grow = Callable[..., tuple[list[str], AppendResult]]


@pytest.fixture
def grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Grow:
    """Appends texts to s.zarr and gives all texts of the store, and the result; what it has is read in small parts."""
    monkeypatch.setattr("trainwright.storage.building.known._PART_TOKENS", 500)
    monkeypatch.setattr("trainwright.storage.building.known._READ_TOKENS", 70)

    def run(texts: list[str], kind: str, **options: Any) -> tuple[list[str], AppendResult]:
        (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
        given = BuildOptions(deduplicate=kind, **options)
        result = append_store([tmp_path / "b.jsonl"], tmp_path / "s.zarr", given, (quiet, lambda line: None))
        assert verify_store(tmp_path / "s.zarr", lambda done, total: None) == result.info
        store, tokenizer = open_store(tmp_path / "s.zarr"), open_tokenizer(tmp_path / "s.zarr")
        tokens = store.read(0, store.num_tokens)
        pieces = np.split(tokens, store.document_index.within(1, store.num_tokens))
        return [tokenizer.decode(piece[:-1].tolist()) for piece in pieces], result

    return run


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_store_has_is_not_added_again(drop: Drop, grow: Grow, rng: random.Random, workers: int) -> None:
    old = [rng.choice(["", "a", "same", f"text {rng.randrange(40)} " * 9]) for _ in range(200)]
    new = [rng.choice([*old, f"other {rng.randrange(40)} " * 7]) for _ in range(200)]
    new += ["a new one"]
    kept, before = drop(old, "none", workers=1)
    assert kept == old, "what it has twice stays"
    wanted = [text for text in dict.fromkeys(new) if text not in old]
    everything, result = grow(new, "exact", workers=workers)
    assert everything == old + wanted
    assert (result.documents, result.dropped_exact, result.dropped_near) == (len(wanted), 201 - len(wanted), 0)
    assert (result.info.generation, result.info.deduplication) == (2, None)
    assert result.tokens == result.info.tokens - before.info.tokens


def test_nothing_new_is_no_generation(drop: Drop, grow: Grow, tmp_path: Path) -> None:
    texts = [f"text {number} " * 9 for number in range(50)]
    _, before = drop(texts, "none", workers=1)
    everything, result = grow(texts[::-1], "exact", workers=1)
    assert everything == texts
    assert (result.documents, result.tokens, result.dropped_exact) == (0, 0, 50)
    assert result.info == before.info
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".jsonl") == ["s.zarr"]


def test_near_duplicates_of_what_a_store_has(drop: Drop, grow: Grow, rng: random.Random) -> None:
    """The same decision as a build of both together, but for what the store has."""
    words = [f"w{number}" for number in range(2000)]
    originals = [" ".join(rng.sample(words, 150)) for _ in range(20)]
    near = [f"{text} and w{number}" for number, text in enumerate(originals[:12])]
    fresh = [" ".join(rng.sample(words, 150)) for _ in range(5)]
    drop(originals, "none", workers=1)
    everything, result = grow([*near, *originals[:4], *fresh, fresh[0] + " w7"], "near", workers=2)
    assert everything == originals + fresh
    assert (result.dropped_exact, result.dropped_near) == (4, 13)
