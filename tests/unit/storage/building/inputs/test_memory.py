"""Memory stays bounded: a large source of each format is read, and built from, in a process whose memory is watched."""

import subprocess
import sys
from pathlib import Path

import pytest

from .files import WRITERS, build, json_lines, write_pair

_MIB = 1 << 20
# Prints by how much the memory of its own (RssAnon) grew after the first part of the work.
_WATCH = """
import sys
from pathlib import Path
from trainwright.storage.building.sources import Selection, open_sources
def used():
    line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10
[source] = open_sources([Path(sys.argv[1])], Selection())
first, most, count, size = 0, 0, 0, 0
for item in getattr(source, "texts", getattr(source, "pieces", None))():
    count += 1
    size += len(item[0]) if isinstance(item, tuple) else item.tokens.nbytes
    if count == 200:
        first = used()
    if count % 50 == 0:
        most = max(most, used())
print(size, most - first)
"""
_BUILD = """
import sys
from pathlib import Path
from trainwright.storage.building.build import BuildOptions, build_store
seen = []
def watch(stage, done, total):
    line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
    seen.append((done if stage == "encode" else 0, int(line.split()[1]) << 10))
options = BuildOptions(tokenizer=Path(sys.argv[3]), deduplicate="near", workers=1)
build_store([Path(sys.argv[1])], Path(sys.argv[2]), options, watch)
print(max(done for done, _ in seen), max(used for _, used in seen[4:]) - max(used for _, used in seen[:4]))
"""


def run(code: str, *arguments: Path) -> list[int]:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize("kind", ["jsonl", "gzip", "zstd", "parquet", "stream", "hdf5", "megatron"])
def test_reading_takes_little_memory(kind: str, tmp_path: Path) -> None:
    """64 MiB of text in documents of 16 kB."""
    if kind == "megatron":
        source = write_pair(tmp_path / "c", [[range(16_000)]] * 2100)
    else:
        source = WRITERS[kind](tmp_path, [f"{number:08} " * 1820 for number in range(4100)])
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 80 * _MIB
    size, grown = run(_WATCH, source)
    assert size > 62 * _MIB
    assert grown < 16 * _MIB
    for file in tmp_path.iterdir():
        file.unlink()


def test_building_takes_little_memory(tmp_path: Path) -> None:
    """20 MB of text: several batches, whose tokens are gone after each."""
    (tmp_path / "small.jsonl").write_bytes(json_lines(["word " * 100]))
    tokenizer = build(tmp_path / "small.zarr", tmp_path / "small.jsonl", vocab_size=270) / "tokenizer"
    (tmp_path / "a.jsonl").write_bytes(json_lines(["word " * 3000] * 1350))
    size, grown = run(_BUILD, tmp_path / "a.jsonl", tmp_path / "store.zarr", tokenizer)
    assert size > 19 * _MIB
    assert grown < 24 * _MIB
    (tmp_path / "a.jsonl").unlink()
