"""What is damaged in a building folder is made again; what is wrong with a source is said and leaves nothing."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trainwright.config.errors import UserError
from trainwright.storage.building.build import BuildOptions, build_store

from ..conftest import quiet
from .same import OPTIONS, SMALL_PART_BYTES, assert_same, build, killed


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("ending", ["part", "json"])
@pytest.mark.parametrize("damage", [Path.unlink, _cut, _flip])
def test_a_damaged_part_is_made_again(
    tmp_path: Path, source: Path, wanted: Path, damage: Callable[[Path], None], ending: str
) -> None:
    folder = killed(source, tmp_path / "store.zarr")
    damage(sorted((folder / "parts").glob(f"*.{ending}"))[2])
    build(source, tmp_path / "store.zarr", *OPTIONS, "--workers", 1)
    assert_same(wanted, tmp_path / "store.zarr")


@pytest.mark.parametrize("damage", [Path.unlink, _cut, _flip])
def test_a_damaged_shard_is_made_again(
    tmp_path: Path, source: Path, wanted: Path, damage: Callable[[Path], None]
) -> None:
    """Its parts were removed already, and are tokenized once more."""
    steps = 30
    store = tmp_path / "store.zarr"
    while True:
        folder = killed(source, store, step=steps)
        if len(list((folder / "shards").glob("*.json"))) > 2:
            break
        steps += 10
    assert not (folder / "parts" / "000000.part").exists()
    damage(folder / "store" / "c" / "0")
    build(source, store, *OPTIONS, "--workers", 1)
    assert_same(wanted, store)


def test_a_source_that_changes_meanwhile(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainwright.storage.building.parts.MIN_PART_BYTES", SMALL_PART_BYTES)

    def change(stage: str, done: int, total: int) -> None:
        if stage == "encode" and done > total // 2:
            (source / "39.txt").write_text("other")

    options = BuildOptions(vocab_size=300, workers=1)
    with pytest.raises(UserError, match=r"39.txt: changed while the store was built; build again"):
        build_store([source], tmp_path / "store.zarr", options, change)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_mistake_of_a_worker_is_the_users(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes whole through the pipe, with the line of the file, not of the part."""
    monkeypatch.setattr("trainwright.storage.building.parts.MIN_PART_BYTES", SMALL_PART_BYTES)
    lines = ['{"text": "words of a line"}'] * 4000
    lines[3000] = '{"text": 5}'
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    tokenizer = tmp_path / "t.zarr"
    build_store([source / "00.txt"], tokenizer, BuildOptions(vocab_size=300), quiet)
    options = BuildOptions(tokenizer=tokenizer / "tokenizer", workers=2)
    with pytest.raises(UserError, match=r"a.jsonl: line 3001: 'text' is of type int, not a string; name the field"):
        build_store([tmp_path / "a.jsonl"], tmp_path / "store.zarr", options, quiet)
    assert not (tmp_path / ".store.zarr.building").exists()
