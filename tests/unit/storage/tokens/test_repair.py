"""A second copy restores a store, whatever of it is damaged, and only a second copy does."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from trainwright.config.errors import FoundBad, UserError
from trainwright.storage.tokens.repair import repair_store
from trainwright.storage.tokens.verify import verify_store

from .test_reader import flip

Make = Callable[..., Path]


class Seen:
    """Progress that remembers the last it was told."""

    last = (0, 1)

    def __call__(self, done: int, total: int) -> None:
        self.last = (done, total)


def quiet(done: int, total: int) -> None:
    """Progress that shows nothing."""


def content(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.fixture
def copy(make_store: Make, tmp_path: Path) -> Path:
    shutil.copytree(make_store(), tmp_path / "copy.zarr")
    return tmp_path / "copy.zarr"


def test_any_damage_to_any_files(copy: Path, tmp_path: Path, rng: random.Random) -> None:
    store = tmp_path / "store.zarr"
    before, seen = content(store), Seen()
    for number in range(40):
        names = rng.sample(sorted(before), rng.randrange(1, 4))
        for name in names:
            path, size = store / name, len(before[name])
            how = rng.choice(["flip", "cut", "remove"])
            print(number, name, how)
            if how == "flip":
                flip(path, rng.randrange(size))
            elif how == "cut":
                path.write_bytes(before[name][: rng.randrange(size)])
            else:
                path.unlink()
        repaired = repair_store(store, copy, seen)
        assert sorted(repaired) == sorted(names)
        assert content(store) == before
        assert seen.last[0] == seen.last[1] > 0
    verify_store(store, quiet)
    assert repair_store(store, copy, quiet) == []


def test_what_is_bad_in_both_is_named_and_the_rest_is_repaired(copy: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"
    before = content(store)
    for path in (store, copy):
        flip(path / "c" / "1", 77)
    flip(store / "c" / "0", 77)
    with pytest.raises(FoundBad, match=r"copy\.zarr/c/1: is bad here too"):
        repair_store(store, copy, quiet)
    assert (store / "c" / "0").read_bytes() == before["c/0"]
    (copy / "c" / "1").unlink()
    with pytest.raises(FoundBad, match=r"copy\.zarr/c/1: missing here too"):
        repair_store(store, copy, quiet)
    assert not list(store.rglob(".*"))


def test_another_store_is_refused(make_store: Make, copy: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"
    other = make_store("other.zarr", shard_tokens=1024)
    (store / "c" / "0").unlink()
    with pytest.raises(UserError, match=r"--repair .*other\.zarr: not a copy of .*store\.zarr"):
        repair_store(store, other, quiet)
    assert not (store / "c" / "0").exists()
