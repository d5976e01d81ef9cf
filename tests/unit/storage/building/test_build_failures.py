"""A build that is killed, or whose disk refuses, leaves no store; what it leaves beside is gone after the next one."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainwright.config.errors import UserError
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.tokens.verify import verify_store

from ..conftest import WORDS, quiet

BUILD = "import sys; from trainwright.cli import main; main.COMMANDS = ('data',); sys.exit(main.main(sys.argv[1:]))"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", BUILD, "data", "build", *map(str, arguments)]


@pytest.fixture
def much_text(tmp_path: Path) -> Path:
    """About 3 MB in 60 files: seconds of work."""
    folder = tmp_path / "much"
    folder.mkdir()
    words = random.Random(1).choices(WORDS, k=12_000)
    for number in range(60):
        (folder / f"{number}.txt").write_text(" ".join(words[number:]))
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_killed_build_leaves_no_store(tmp_path: Path, much_text: Path, rng: random.Random) -> None:
    store = tmp_path / "store.zarr"
    beside = tmp_path / ".store.zarr.building"
    options = ("--vocab-size", 300, "--shard-tokens", 65536)
    for attempt in range(4):
        process = subprocess.Popen(command(much_text, store, *options), start_new_session=True)
        deadline = time.monotonic() + 60
        # At a random moment once it works, the last time while it writes shards.
        while not (beside / "store" / "c" / "1" if attempt == 3 else beside).exists() and time.monotonic() < deadline:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        time.sleep(rng.random() * (0 if attempt == 3 else 0.8))
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
        assert not store.exists()
        assert beside.exists()
    build_store([tmp_path / "much" / "0.txt"], store, BuildOptions(vocab_size=257), quiet)
    assert verify_store(store, lambda done, total: None).documents == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["much", "store.zarr"]
    assert not list(store.rglob(".*")), "no lock and no half-written file is left inside"


def test_an_interrupted_build_cleans_up(tmp_path: Path, much_text: Path) -> None:
    process = subprocess.Popen(command(much_text, tmp_path / "store.zarr"), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / ".store.zarr.building").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)  # between making the folder and holding its lock nobody would clean up; the next build does
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130, error
    assert error.splitlines() == ["trainwright: stopped by Ctrl-C"]
    assert [path.name for path in tmp_path.iterdir()] == ["much"]


def test_two_builds_of_one_store(tmp_path: Path, much_text: Path) -> None:
    """The second is refused while the first works, and the first is not disturbed."""
    store = tmp_path / "store.zarr"
    process = subprocess.Popen(command(much_text, store, "--vocab-size", 300))
    deadline = time.monotonic() + 60
    while not (tmp_path / ".store.zarr.building" / "tokenizer").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    with pytest.raises(UserError, match="another build is writing it"):
        build_store([much_text / "0.txt"], store, BuildOptions(vocab_size=257), quiet)
    assert process.wait(120) == 0
    assert verify_store(store, lambda done, total: None).documents == 60
    with pytest.raises(UserError, match="exists already"):
        build_store([much_text / "0.txt"], store, BuildOptions(vocab_size=257), quiet)


def failed(target: Path, *arguments: object) -> str:
    """Run a build that must end with exit code 2, and give its one line."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stdout == ""
    assert str(target) in done.stderr
    return done.stderr


def test_a_full_disk(small_disk: Path, much_text: Path) -> None:
    target = small_disk / "deep" / "store.zarr"
    line = failed(target, much_text, target, "--vocab-size", 300)
    assert "No space left on device; free some space or give another folder" in line
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("room_kib", [0, 4, 16, 64, 120])
def test_a_disk_that_is_full_at_another_moment(small_disk: Path, tmp_path: Path, room_kib: int) -> None:
    """While folders are made, and while tokenizer files, parts, shards and zarr.json are written."""
    filler = small_disk / "filler"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    filler.write_bytes(b"x" * (free - room_kib * 1024))
    (tmp_path / "a.txt").write_text("text " * 20_000)
    arguments = (tmp_path / "a.txt", small_disk / "store.zarr", "--vocab-size", 2000, "--shard-tokens", 1024)
    line = failed(small_disk, *arguments)
    kept = (small_disk / ".store.zarr.building").exists()
    assert kept == ("; free some space, and the same command goes on where it was" in line)
    assert kept or [path.name for path in small_disk.iterdir()] == ["filler"]
    filler.unlink()
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, check=False)
    assert ("goes on where it was: 1 of 1 parts are tokenized" in done.stderr) == kept
    copy = shutil.copytree(small_disk / "store.zarr", tmp_path / "copy.zarr")  # a mapped store holds its disk
    assert verify_store(copy, lambda done, total: None).documents == 1
    assert {path.name for path in small_disk.iterdir()} == {"store.zarr"}


def test_a_read_only_disk(small_disk: Path, much_text: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    line = failed(small_disk, much_text, small_disk / "store.zarr")
    assert "Read-only file system; give a folder that can be written" in line


@pytest.mark.parametrize("lock", [True, False])
def test_what_a_killed_build_left_is_not_kept(tmp_path: Path, lock: bool) -> None:
    beside = tmp_path / ".store.zarr.building"
    (beside / "c").mkdir(parents=True)
    (beside / "c" / "9").write_text("old")
    (beside / "junk").symlink_to("/nonexistent")
    if lock:
        (beside / ".lock").touch()
    (tmp_path / "a.txt").write_text("text")
    build_store([tmp_path / "a.txt"], tmp_path / "store.zarr", BuildOptions(vocab_size=257), quiet)
    assert not (tmp_path / "store.zarr" / "c" / "9").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "store.zarr"]
