"""`data copy`: whole or not there, from and to folders and an object store, and on again after a kill at any moment."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.s3_server import BUCKET, S3
from tests.unit.storage.tokens.test_reader import flip
from trainwright.cli.main import main
from trainwright.config.errors import FoundBad, UserError
from trainwright.storage.loading.copying import beside_of, contents_of, copy_store
from trainwright.storage.loading.packing import pack_store, verify_packings
from trainwright.storage.tokens.locations import Location, locate
from trainwright.storage.tokens.reader import open_store
from trainwright.storage.tokens.verify import verify_store

Make = Callable[..., Path]


def quiet(*_: object) -> None:
    """Progress that shows nothing."""


def copy(source: Location, target: Location) -> int:
    return copy_store(source, contents_of(source), target, quiet)


def check(place: Location, original: Path) -> None:
    """The whole store lies there."""
    assert verify_store(place, quiet) == verify_store(original, quiet)
    verify_packings(place)
    assert contents_of(place) == contents_of(original)
    copied, first = open_store(place), open_store(original)
    assert np.array_equal(copied.read(0, copied.num_tokens), first.read(0, first.num_tokens))


def test_there_and_back_again(make_store: Make, s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(compression="zstd")
    pack_store(store, 32)
    there, again = locate(f"s3://{BUCKET}/a/store.zarr"), locate(f"s3://{BUCKET}/b/store.zarr")
    for source, target in ((store, there), (there, again), (again, tmp_path / "back"), (store, tmp_path / "beside")):
        assert main(["data", "copy", str(source), str(target)]) == 0
        check(target, store)
        assert copy(source, target) == 0  # nothing is left to do
    assert main(["data", "verify", str(again)]) == 0
    assert main(["data", "inspect", "--advise", str(again)]) == 0
    assert "whole" in capsys.readouterr().out
    assert not list(tmp_path.glob(".*.copying"))


def test_what_is_bad_at_the_target_is_replaced(make_store: Make, s3: S3, tmp_path: Path) -> None:
    store = make_store()
    there = locate(s3.upload(store, "store.zarr"))
    s3.delete("store.zarr/zarr.json")
    s3.put("store.zarr/c/0", b"x" * (store / "c/0").stat().st_size)
    s3.put("store.zarr/c/1", b"short")
    assert copy(store, there) == (store / "c/1").stat().st_size
    check(there, store)
    copy(there, tmp_path / "copy")
    flip(tmp_path / "copy/c/0", 5)
    copy(there, tmp_path / "copy")
    check(tmp_path / "copy", store)


def test_a_damaged_source_is_named_and_not_published(make_store: Make, s3: S3, tmp_path: Path) -> None:
    store = make_store()
    flip(store / "c/1", 7)
    for target in (locate(f"s3://{BUCKET}/store.zarr"), tmp_path / "copy"):
        with pytest.raises(FoundBad, match=rf"^{store}/c/1: is not the recorded one"):
            copy(store, target)
        with pytest.raises(UserError, match="not a token store"):
            open_store(target)


def test_another_store_is_never_overwritten(make_store: Make, s3: S3, tmp_path: Path) -> None:
    one, other = make_store("one.zarr"), make_store("other.zarr", vocab_size=290)
    place = locate(s3.upload(other, "store.zarr"))
    for target in (place, other):
        with pytest.raises(UserError, match=rf"^{target}: another store is there"):
            copy(one, target)
        check(target, other)
    (tmp_path / "notes").mkdir()
    with pytest.raises(UserError, match="exists already, and is not a store"):
        copy(one, tmp_path / "notes")


def test_a_disk_that_is_too_small(make_store: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store()
    monkeypatch.setattr("trainwright.storage.loading.copying._MARGIN_BYTES", 1 << 60)
    with pytest.raises(UserError, match=rf"^{tmp_path}: [0-9,]+ bytes are free, and 1,152,9[0-9,]+ are needed"):
        copy(store, tmp_path / "copy")


@pytest.mark.parametrize("to_objects", [False, True], ids=["folder", "objects"])
def test_killed_at_random_moments(
    make_store: Make, s3: S3, rng: random.Random, tmp_path: Path, to_objects: bool
) -> None:
    store = make_store(shard_tokens=1024)
    target: Location = locate(f"s3://{BUCKET}/store.zarr") if to_objects else tmp_path / "copy"
    command = [sys.executable, "-m", "trainwright.cli.main", "data", "copy", str(store), str(target)]
    began = time.monotonic()
    whole = subprocess.run([*command[:-1], str(tmp_path / "first")], capture_output=True, text=True, timeout=60)
    assert whole.returncode == 0, whole.stderr
    took_s = time.monotonic() - began
    killed = 0
    for _ in range(4):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(0.5, 1.0) * took_s)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
            process.wait()
        if is_published(target):
            check(target, store)
    print(f"{killed} were killed")
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    check(target, store)
    assert to_objects or not beside_of(tmp_path / "copy").exists()


def is_published(target: Location) -> bool:
    return (target / "zarr.json").exists()
