"""Builds in processes of their own, with small parts, and whether two stores are the same to the byte."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SMALL_PART_BYTES = 20_000
OPTIONS = ("--vocab-size", 300, "--shard-tokens", 8192, "--deduplicate", "exact")
# With $KILL_AT it ends itself, as a power cut would, just before its n-th fsync; parts are small.
_BUILD = f"""
import os, signal, sys
from trainwright.storage.building import parts
from trainwright.cli import main
parts.MIN_PART_BYTES = {SMALL_PART_BYTES}
fsync, left = os.fsync, int(os.environ.get("KILL_AT", "-1"))
def dying(handle):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(handle)
os.fsync = dying
main.COMMANDS = ("data",)
sys.exit(main.main(sys.argv[1:]))
"""


def command(*arguments: object) -> list[str]:
    """`trainwright data build ...` with small parts."""
    return [sys.executable, "-c", _BUILD, "data", "build", *map(str, arguments)]


def build(*arguments: object, timeout_s: float = 200) -> str:
    """Run it; what it says on stderr."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def assert_same(one: Path, other: Path) -> None:
    """Two folders hold the same files of the same bytes."""
    names = files(one)
    assert files(other) == names
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def files(folder: Path) -> Sequence[Path]:
    """Paths of all files in a folder, hidden ones too."""
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def killed(source: Path, store: Path, *options: object, step: int = 30) -> Path:
    """A build that was killed when some parts were done; its folder."""
    run = command(source, store, *(options or OPTIONS), "--workers", 1)
    environment = {**os.environ, "KILL_AT": str(step)}
    done = subprocess.run(run, env=environment, capture_output=True, timeout=200, check=False)
    assert done.returncode == -signal.SIGKILL
    folder = store.with_name(f".{store.name}.building")
    assert len(list((folder / "parts").glob("*.json"))) > 3
    return folder
