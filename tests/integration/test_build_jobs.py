"""`data build --cluster` on a real Slurm: a local build's bytes, going on after scancel, mistakes that come back."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainwright.config.cluster import ClusterConfig
from trainwright.config.loading import load_cluster
from trainwright.launchers.slurm import Slurm

from ..unit.storage.building.same import assert_same, build, command
from .real_runs import IN_MATRIX

pytestmark = pytest.mark.slurm
WORDS = [f"word{number}" for number in range(300)]
OPTIONS = ("--vocab-size", 400, "--shard-tokens", 16384)
KILLS = 100 if os.environ.get("WHOLE_MATRIX") == "1" else 2


@pytest.fixture
def rng() -> random.Random:
    """A random generator whose seed is printed."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with about 600 KB of JSON lines, which are some thirty small parts, and the store that they give."""
    words = random.Random(5)
    texts = [" ".join(words.choices(WORDS, k=200)) for _ in range(400)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    build(tmp_path / "a.jsonl", tmp_path / "wanted.zarr", *OPTIONS)
    return tmp_path


def submit(folder: Path, *more: object) -> "subprocess.CompletedProcess[str]":
    arguments = [*command("a.jsonl", "store.zarr", *OPTIONS, "--cluster", "dev", "--workers", 3, *more)]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def cluster() -> ClusterConfig:
    return load_cluster("dev")


def test_the_same_store_as_here(dev_cluster: Path, folder: Path) -> None:
    done = submit(folder, "--wait", "--json", "--deduplicate", "none")
    assert done.returncode == 0, done.stderr
    assert "tokenizes and job" in done.stderr
    assert json.loads(done.stdout)["documents"] == 400
    assert_same(folder / "wanted.zarr", folder / "store.zarr")
    assert {path.name for path in folder.iterdir()} == {"a.jsonl", "wanted.zarr", "store.zarr"}


@pytest.mark.timeout(3600)
def test_it_goes_on_after_scancel(dev_cluster: Path, folder: Path, rng: random.Random) -> None:
    """The array is cancelled at random moments; in between nobody else may build, and others follow."""
    building = folder / ".store.zarr.building"
    for attempt in range(KILLS):
        done = submit(folder, "--json")
        assert done.returncode == 0, done.stderr
        jobs = json.loads(done.stdout)["job_ids"]
        here = subprocess.run(command("a.jsonl", "store.zarr", *OPTIONS), cwd=folder, capture_output=True, text=True)
        if here.returncode != 0 and "exists already" not in here.stderr:
            assert f"jobs {' and '.join(jobs)} are building it; follow them with --cluster dev --wait" in here.stderr
        time.sleep(rng.random() * 6)
        for job in jobs:
            Slurm(cluster()).cancel(job)
        deadline = time.monotonic() + 60
        while Slurm(cluster()).are_alive(jobs) and time.monotonic() < deadline:
            time.sleep(0.3)
        assert attempt or building.exists() or (folder / "store.zarr").exists()
        if (folder / "store.zarr").exists():
            assert_same(folder / "wanted.zarr", folder / "store.zarr")
            shutil.rmtree(folder / "store.zarr")
    print(f"kills: {KILLS} scancels of a Slurm array at random moments, gone on with to the same bytes")
    done = submit(folder, "--wait")
    assert done.returncode == 0, done.stderr
    assert_same(folder / "wanted.zarr", folder / "store.zarr")


@IN_MATRIX
def test_another_command_waits_for_the_jobs(dev_cluster: Path, folder: Path) -> None:
    jobs = json.loads(submit(folder, "--json").stdout)["job_ids"]
    other = submit(folder, "--compression", "zstd")
    if Slurm(cluster()).are_alive(jobs):
        assert other.returncode == 2
        assert f"jobs {' and '.join(jobs)} are building it otherwise: --compression is another" in other.stderr
    same = submit(folder, "--wait")
    assert same.returncode == 0 or "exists already" in same.stderr, same.stderr
    assert_same(folder / "wanted.zarr", folder / "store.zarr")


def test_a_mistake_in_a_job_comes_back(dev_cluster: Path, folder: Path) -> None:
    lines = (folder / "a.jsonl").read_text().splitlines()
    tokenizer = folder / "wanted.zarr" / "tokenizer"
    lines[300] = '{"text": 5}'
    (folder / "a.jsonl").write_text("\n".join(lines))
    arguments = command("a.jsonl", "store.zarr", "--tokenizer", tokenizer, "--cluster", "dev", "--wait")
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("trainwright: SOURCE a.jsonl: line 301: 'text' is of type int, not a string")
    assert not (folder / "store.zarr").exists()


def append(folder: Path, store: str, *more: object) -> "subprocess.CompletedProcess[str]":
    words = [*command("b.jsonl", store, *more)]
    words[words.index("build")] = "append"
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@IN_MATRIX
@pytest.mark.timeout(900)
def test_an_append_by_jobs(dev_cluster: Path, folder: Path) -> None:
    """The same next generation as here, without what the store has; asked again nothing is done twice."""
    shutil.copytree(folder / "wanted.zarr", folder / "store.zarr")
    words = random.Random(6)
    texts = [json.dumps({"text": " ".join(words.choices(WORDS, k=200))}) for _ in range(50)]
    (folder / "b.jsonl").write_text("\n".join([*(folder / "a.jsonl").read_text().splitlines()[:70], *texts]))
    here = append(folder, "wanted.zarr", "--deduplicate", "exact", "--json")
    assert here.returncode == 0, here.stderr
    there = ("--cluster", "dev", "--workers", 3, "--deduplicate", "exact", "--json")
    first = append(folder, "store.zarr", *there)
    assert first.returncode == 0, first.stderr
    jobs = json.loads(first.stdout)["job_ids"]
    deadline = time.monotonic() + 240
    while Slurm(cluster()).are_alive(jobs) and time.monotonic() < deadline:
        time.sleep(0.5)
    again = append(folder, "store.zarr", *there, "--wait")
    assert again.returncode == 0, again.stderr
    record = json.loads(again.stdout)
    assert record == {**json.loads(here.stdout), "store": "store.zarr"}
    assert (record["generation"], record["added_documents"], record["dropped_exact"]) == (2, 50, 70)
    assert_same(folder / "wanted.zarr", folder / "store.zarr")
    assert {path.name for path in folder.iterdir()} == {"a.jsonl", "b.jsonl", "wanted.zarr", "store.zarr"}


def test_a_profile_without_slurm(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    arguments = [sys.executable, "-m", "trainwright.cli.main", "data", "build", "a.txt", "s.zarr", "--cluster", "local"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--cluster: local, whose scheduler is local; leave it out to build here" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
