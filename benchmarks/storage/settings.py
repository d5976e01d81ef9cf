"""What the benchmarks share: sizes, the folder for data, and how a benchmark is started by itself."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LENGTH = 2048
"""Training length in tokens; a sample has one more, so that its targets are there."""
WIDTH = LENGTH + 1
BATCH = 16
VOCABULARY = 50_257
SEED = 1234


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How large and how long."""

    tokens: int
    """Tokens of the corpus that is read and written."""
    seconds: float
    """Length of one timed piece."""
    rounds: int
    """How often candidate and baseline take turns."""
    folder: Path
    """Data that is read: page cache or tmpfs."""
    disk: Path
    """A folder on a disk, where writing and cold reading are measured."""
    text_bytes: int
    """Text that is tokenized."""
    samples: int
    """Samples of the largest sparse store."""
    peers: bool
    """Without peers only what needs none is measured, and nothing is asserted."""
    arguments: tuple[str, ...]
    """The command line that these came from."""


def parse(arguments: Sequence[str]) -> Settings:
    """Settings from a command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=200_000_000)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/trainwright-bench"))
    parser.add_argument("--disk", type=Path, default=Path("build/bench-data"))
    parser.add_argument("--text-bytes", type=int, default=16 << 20)
    parser.add_argument("--samples", type=int, default=10**10)
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    settings = Settings(**vars(parser.parse_args(arguments)), arguments=tuple(arguments))
    settings.folder.mkdir(parents=True, exist_ok=True)
    settings.disk.mkdir(parents=True, exist_ok=True)
    return settings


def start(measure: Callable[[Settings], bool]) -> None:
    """Run one benchmark by itself; exit code 1 if it misses its figure."""
    settings = parse(sys.argv[1:])
    good = measure(settings)
    sys.stdout.flush()
    # Peers leave threads, processes and locks behind that would hold the exit up.
    os._exit(0 if good or not settings.peers else 1)
