"""A build that was killed goes on where it was, and gives the bytes that an undisturbed one gives, whatever workers."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trainwright.storage.tokens.verify import verify_store

from .same import OPTIONS, assert_same, build, command, files, killed

KILLS = 100 if os.environ.get("WHOLE_MATRIX") == "1" else 4


def test_workers_do_not_show(tmp_path: Path, source: Path, wanted: Path) -> None:
    assert verify_store(wanted, lambda done, total: None).documents == 20
    for workers in (2, 5):
        build(source, tmp_path / f"{workers}.zarr", *OPTIONS, "--workers", workers)
        assert_same(wanted, tmp_path / f"{workers}.zarr")


@pytest.mark.timeout(3600)
def test_killed_before_each_step(tmp_path: Path, source: Path, wanted: Path, rng: random.Random) -> None:
    """SIGKILL just before an fsync, between what is written and what is published; at every one in the whole matrix."""
    store, place, kills = tmp_path / "store.zarr", 0, 0
    steps = range(1, 200) if KILLS == 100 else sorted(rng.sample(range(1, 90), 6))
    for place in steps:
        run = command(source, store, *OPTIONS, "--workers", 1)
        done = subprocess.run(
            run, env={**os.environ, "KILL_AT": str(place)}, capture_output=True, timeout=200, check=False
        )
        if done.returncode == 0:
            break
        kills += 1
        assert done.returncode == -signal.SIGKILL
        said = build(source, store, *OPTIONS, "--workers", 1) if not store.exists() else ""
        assert said == "" or "parts are tokenized" in said
        assert_same(wanted, store)
        _remove(store)
    print(f"kills: {kills} builds killed before an fsync, each gone on with to the same bytes")
    assert kills


@pytest.mark.timeout(3600)
def test_killed_at_any_moment(tmp_path: Path, source: Path, wanted: Path, rng: random.Random) -> None:
    """The whole process group, or the parent alone, whose workers then end by themselves."""
    store = tmp_path / "store.zarr"
    began = time.monotonic()
    build(source, store, *OPTIONS, "--workers", 2)
    whole_s = time.monotonic() - began
    _remove(store)
    kills = 0
    while kills < KILLS:
        while not store.exists():
            process = subprocess.Popen(
                command(source, store, *OPTIONS, "--workers", 2), start_new_session=True, stderr=subprocess.DEVNULL
            )
            try:
                assert process.wait(rng.random() * whole_s * 1.2) == 0
            except subprocess.TimeoutExpired:
                if rng.random() < 0.5:
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()
                process.wait()
                kills += 1
        assert_same(wanted, store)
        build_again = subprocess.run(command(source, store, *OPTIONS), capture_output=True, text=True, check=False)
        assert "exists already" in build_again.stderr
        assert {path.name for path in tmp_path.iterdir()} == {"source", "wanted.zarr", "store.zarr"}
        _remove(store)
    print(f"kills: {kills} at random moments of builds, which were gone on with to the same bytes")


def test_it_says_that_it_goes_on(tmp_path: Path, source: Path, wanted: Path) -> None:
    folder = killed(source, tmp_path / "store.zarr")
    done = {path: path.stat().st_mtime_ns for path in (folder / "parts").glob("*.part")}
    total = len(list((folder / "parts").glob("*.json")))
    process = subprocess.run(
        command(source, tmp_path / "store.zarr", *OPTIONS, "--workers", 1),
        env={**os.environ, "KILL_AT": "12"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.stderr.splitlines()[0].startswith(f"goes on where it was: {total} of ")
    assert all(path.stat().st_mtime_ns == before for path, before in done.items()), "nothing was done again"
    build(source, tmp_path / "store.zarr", *OPTIONS)
    assert_same(wanted, tmp_path / "store.zarr")


def test_a_killed_worker(tmp_path: Path, source: Path, wanted: Path) -> None:
    """As when memory runs out: one line, and what is done is kept."""
    store = tmp_path / "store.zarr"
    process = subprocess.Popen(
        command(source, store, *OPTIONS, "--workers", 2), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    parts, children = tmp_path / ".store.zarr.building" / "parts", Path(f"/proc/{process.pid}/task")
    deadline = time.monotonic() + 60
    while not list(parts.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.002)
    words = " ".join(file.read_text() for file in children.glob("*/children")).split()
    os.kill(int(words[0]), signal.SIGKILL)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 2, error
    assert error.count("\n") == 1
    assert "trainwright: --workers: a worker ended with signal 9 at part " in error
    assert "goes on where it was: " in build(source, store, *OPTIONS)
    assert_same(wanted, store)


def _touch(source: Path) -> None:
    file = source / "05.txt"
    os.utime(file, ns=(1, 1))


def _lengthen(source: Path) -> None:
    with (source / "05.txt").open("a") as file:
        file.write(" more")


def _add(source: Path) -> None:
    (source / "99.txt").write_text("more")


def _take(source: Path) -> None:
    (source / "05.txt").unlink()


@pytest.mark.parametrize(
    ("change", "word"), [(_touch, "changed"), (_lengthen, "changed"), (_add, "new"), (_take, "gone")]
)
def test_a_changed_source_starts_over(tmp_path: Path, source: Path, change: Callable[[Path], None], word: str) -> None:
    killed(source, tmp_path / "store.zarr")
    change(source)
    said = build(source, tmp_path / "store.zarr", *OPTIONS, "--workers", 1)
    assert said.splitlines()[0].startswith("starts over, since ")
    assert said.splitlines()[0].endswith(f".txt is {word}")
    build(source, tmp_path / "fresh.zarr", *OPTIONS, "--workers", 1)
    assert_same(tmp_path / "fresh.zarr", tmp_path / "store.zarr")


def test_another_command_starts_over(tmp_path: Path, source: Path) -> None:
    killed(source, tmp_path / "store.zarr")
    said = build(source, tmp_path / "store.zarr", "--vocab-size", 300, "--shard-tokens", 4096)
    assert said.splitlines()[0] == "starts over, since --shard-tokens is another"


def test_another_tokenizer_of_the_same_name_starts_over(tmp_path: Path, source: Path, wanted: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    subprocess.run(["cp", "-r", wanted / "tokenizer", tokenizer], check=True)
    options = ("--tokenizer", tokenizer, "--shard-tokens", 8192)
    killed(source, tmp_path / "store.zarr", *options)
    config = tokenizer / "tokenizer_config.json"
    config.write_text(config.read_text().replace("{", '{"model_max_length": 7,', 1))
    said = build(source, tmp_path / "store.zarr", *options)
    assert said.splitlines()[0] == f"starts over, since {tokenizer} is changed"


def _remove(store: Path) -> None:
    assert not [name for name in files(store) if name.name.startswith(".")]
    subprocess.run(["rm", "-r", store], check=True)
