"""A source of small parts and the store that it gives."""

import random
from pathlib import Path

import pytest

from ..conftest import WORDS
from .same import OPTIONS, build


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """About 300 KB in 40 files, some of them equal: a dozen small parts, ten shards."""
    folder = tmp_path / "source"
    folder.mkdir()
    words = random.Random(1).choices(WORDS, k=1500)
    for number in range(40):
        (folder / f"{number:02}.txt").write_text(" ".join(words[number // 2 * 2 :]))
    return folder


@pytest.fixture
def wanted(tmp_path: Path, source: Path) -> Path:
    """The store that one undisturbed worker makes."""
    assert build(source, tmp_path / "wanted.zarr", *OPTIONS, "--workers", 1) == ""
    return tmp_path / "wanted.zarr"
