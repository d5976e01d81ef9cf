"""Small real texts and token stores."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.building.sources import Selection

TEXT = "the quick brown fox jumps over lazy dogs and reads naïve 数据 of 1234 tokens; x = y + 1"
WORDS = TEXT.split()


def quiet(stage: str, done: int, total: int) -> None:
    """Progress that shows nothing."""


@pytest.fixture
def rng() -> random.Random:
    """A random generator whose seed is printed, so that a failure can be run again."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture
def text_folder(tmp_path: Path, rng: random.Random) -> Path:
    """Folder of 40 text files, in subfolders, one of them empty."""
    folder = tmp_path / "text"
    for number in range(40):
        file = folder / f"part{number % 3}" / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("" if number == 7 else " ".join(rng.choices(WORDS, k=rng.randrange(1, 400))) + "\n")
    return folder


@pytest.fixture
def make_store(text_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Builds a store of the text folder under a name, with small shards unless told otherwise."""

    def make(name: str = "store.zarr", source: Path = text_folder, **options: Any) -> Path:
        options = {"vocab_size": 300, "shard_tokens": 2048, "selection": Selection(), **options}
        build_store([source], tmp_path / name, BuildOptions(**options), quiet)
        return tmp_path / name

    return make
