"""The benchmarks of the data path run on tiny data, without peers; they assert the tokens that they read and write."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TINY = ("--tokens", "300000", "--seconds", "0.01", "--rounds", "1", "--samples", "1000", "--text-bytes", "60000")
# What stays when peers are left out, and a word that its table must have.
TABLES = {
    "read_samples": "memory map slices",
    "first_batch": "1,000 samples, shards: 1; resume in mid-epoch",
    "first_touch": "checksums on first touch",
    "write_tokens": "on a disk, with fsync",
    "tokenize_text": "MiB of JSON lines",
    "memory": "the loader imported",
    "cold_reads": "reader, checksums on",
}


@pytest.mark.parametrize("name", TABLES)
def test_runs_without_peers(name: str, tmp_path: Path) -> None:
    folders = ("--folder", str(tmp_path / "data"), "--disk", str(tmp_path / "disk"))
    command = [sys.executable, "-m", "benchmarks.storage.run", name, *TINY, *folders, "--no-peers"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    assert TABLES[name] in run.stdout
    assert "not measured" not in run.stdout
