"""A store grows: the tokens of one build of all sources, older generations stay, a kill loses and doubles nothing."""

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from trainwright.config.errors import FoundBad, UserError
from trainwright.storage.building.append import AppendResult, append_store
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.tokens.reader import TokenStore, open_store
from trainwright.storage.tokens.store import read_info
from trainwright.storage.tokens.verify import check_presence, verify_store

from ..conftest import WORDS, quiet
from .same import command

Texts = Callable[..., Path]
STEPS = range(1, 200) if os.environ.get("WHOLE_MATRIX") == "1" else None


@pytest.fixture
def texts(tmp_path: Path, rng: random.Random) -> Texts:
    """Makes a folder of text files of random lengths."""

    def make(name: str, count: int = 12) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for number in range(count):
            (folder / f"{number:02}.txt").write_text(" ".join(rng.choices(WORDS, k=rng.randrange(1, 1500))))
        return folder

    return make


def append(store: Path, *sources: Path) -> AppendResult:
    said: list[str] = []
    return append_store(sources, store, BuildOptions(workers=1), (quiet, said.append))


def contents(store: TokenStore) -> tuple[list[int], list[int]]:
    starts = store.document_index.within(0, store.num_tokens)
    return store.read(0, store.num_tokens).tolist(), starts.tolist()


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("index_shard", [16, 1 << 20])
def test_three_generations(
    tmp_path: Path, texts: Texts, compression: str, index_shard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tokens.index_writer", "building.layout"):
        monkeypatch.setattr(f"trainwright.storage.{module}.INDEX_SHARD", index_shard)
    monkeypatch.setattr("trainwright.storage.tokens.index_writer.INDEX_CHUNK", min(4, index_shard))
    path, folders = tmp_path / "s.zarr", [texts("a"), texts("b", 25), texts("c", 3)]
    options = BuildOptions(vocab_size=300, shard_tokens=5120, compression=compression, workers=1)
    build_store(folders[:1], path, options, quiet)
    early = open_store(path)
    seen = [contents(open_store(path))]
    for number, folder in enumerate(folders[1:], 2):
        result = append(path, folder)
        assert result.info.generation == number
        assert result.documents == len(list(folder.iterdir()))
        assert verify_store(path, lambda done, total: None) == result.info == read_info(path)
        seen.append(contents(open_store(path)))
    whole = tmp_path / "whole.zarr"
    given = BuildOptions(tokenizer=path / "tokenizer", shard_tokens=5120, compression=compression, workers=1)
    build_store(folders, whole, given, quiet)
    assert contents(open_store(whole)) == seen[-1]
    for number, expected in enumerate(seen, 1):
        assert contents(open_store(path, generation=number)) == expected
    assert contents(early) == seen[0], "who had it open is not disturbed, whether it touched the last shard or not"
    assert [(each.tokens, each.documents) for each in read_info(path).generations] == [
        (len(tokens), len(starts)) for tokens, starts in seen
    ]
    assert np.array_equal(zarr.open_array(path, mode="r")[:], seen[-1][0])
    assert np.array_equal(zarr.open_array(path / "documents", mode="r")[:], seen[-1][1])
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "b", "c", "s.zarr", "whole.zarr"]
    assert not list(path.rglob(".*"))
    with pytest.raises(UserError, match="generation: 4, which the store does not have; use one of 1, 2, 3"):
        read_info(path).at_generation(4)


def test_a_store_that_ends_with_a_shard(tmp_path: Path) -> None:
    for name, length in (("a", 1023), ("b", 2047), ("c", 5)):
        (tmp_path / name).write_text("x" * length)
    path = tmp_path / "s.zarr"
    build_store([tmp_path / "a"], path, BuildOptions(vocab_size=257, shard_tokens=1024), quiet)
    before = (path / "c" / "0").stat().st_ino
    append(path, tmp_path / "b", tmp_path / "c")
    assert (path / "c" / "0").stat().st_ino == before, "it is whole and stays"
    store = open_store(path)
    assert store.document_index.within(0, store.num_tokens).tolist() == [0, 1024, 3072]
    assert verify_store(path, lambda done, total: None).tokens == 3078


def run(step: int, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """`data append`, ended before its n-th fsync, or not at all."""
    words = command(*arguments, "--workers", 1)
    words[words.index("build")] = "append"
    environment = {**os.environ, "KILL_AT": str(step)}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.timeout(3600)
def test_killed_before_each_step(tmp_path: Path, texts: Texts, rng: random.Random) -> None:
    """The store reads as the old generation or the new one, and the same command ends as if it had not been killed."""
    first, path, wanted = texts("a"), tmp_path / "s.zarr", tmp_path / "wanted.zarr"
    second = texts("b", 20)
    build_store([first], tmp_path / "first.zarr", BuildOptions(vocab_size=300, shard_tokens=5120), quiet)
    shutil.copytree(tmp_path / "first.zarr", wanted)
    old = contents(open_store(wanted))
    append(wanted, second)
    new = contents(open_store(wanted))
    kills = 0
    for step in STEPS or sorted(rng.sample(range(1, 40), 5)) + list(range(40, 56, 3)):
        shutil.copytree(tmp_path / "first.zarr", path)
        done = run(step, second, path)
        if done.returncode == 0:
            shutil.rmtree(path)
            continue
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills += 1
        generation = read_info(path).generation
        assert contents(open_store(path)) == (old if generation == 1 else new)
        if rng.random() < 0.5:
            assert verify_store(path, lambda done, total: None).generation in (1, 2)
        again = run(-1, second, path)
        assert again.returncode == 0, again.stderr
        assert read_info(path) == read_info(wanted)
        assert contents(open_store(path)) == new
        assert contents(open_store(path, generation=1)) == old
        verify_store(path, lambda done, total: None)
        assert not list(path.rglob(".*"))
        assert not (tmp_path / ".s.zarr.building").exists()
        shutil.rmtree(path)
    print(f"kills: {kills} appends killed before an fsync: the old generation or the new one, then the new one")
    assert kills > 3


def test_a_pending_store_is_said_and_verify_finishes_it(
    tmp_path: Path, texts: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.zarr"
    build_store([texts("a")], path, BuildOptions(vocab_size=300, shard_tokens=5120), quiet)

    def stop(place: Path, store: Path) -> None:
        os.replace(place / "c" / "0", store / "c" / "0") if (place / "c" / "0").exists() else None
        raise OSError(5, "stopped here")

    with monkeypatch.context() as patch:
        patch.setattr("trainwright.storage.tokens.growing._move", stop)
        with pytest.raises(OSError, match="stopped here"):
            append(path, texts("b"))
        with pytest.raises(FoundBad, match="the rest cannot be done"):
            verify_store(path, lambda done, total: None)
    assert read_info(path).pending
    with pytest.raises(FoundBad, match="an append was stopped while it replaced files; `trainwright data verify"):
        check_presence(open_store(path))
    assert verify_store(path, lambda done, total: None).generation == 2
    assert not read_info(path).pending


def test_mistakes(tmp_path: Path, texts: Texts) -> None:
    source, path = texts("a"), tmp_path / "s.zarr"
    with pytest.raises(UserError, match="not a token store"):
        append(path, source)
    build_store([source], path, BuildOptions(vocab_size=300), quiet)
    before = read_info(path)
    (tmp_path / "b.jsonl").write_text('{"text": 5}')
    with pytest.raises(UserError, match=r"b\.jsonl: line 1: 'text' is of type int"):
        append(path, tmp_path / "b.jsonl")
    (tmp_path / "empty").write_bytes(b"\0")
    with pytest.raises(UserError, match="none of 1 files is UTF-8 text"):
        append(path, tmp_path / "empty")
    assert read_info(path) == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "b.jsonl", "empty", "s.zarr"]


def test_the_command(tmp_path: Path, texts: Texts) -> None:
    path = tmp_path / "s.zarr"
    build_store([texts("a")], path, BuildOptions(vocab_size=300, shard_tokens=5120), quiet)
    done = run(-1, texts("b", 4), path)
    assert done.stdout.startswith(f"{path}: generation 2: ")
    assert done.stdout.endswith("of 16 in all\n")
    assert " tokens of 4 documents added, " in done.stdout
