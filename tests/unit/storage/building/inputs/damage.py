"""Ways to damage a file, and a build that must refuse it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainwright.config.errors import FoundBad, UserError

from .files import build

TEXTS = [f"document {number} of some words that are not the same {number * 7919}" for number in range(40)]
Damage = Callable[[bytes], bytes]


def cut(share: float) -> Damage:
    return lambda data: data[: int(len(data) * share)]


def cut_by(size: int) -> Damage:
    return lambda data: data[:-size]


def replace(old: bytes, new: bytes, which: int = 0) -> Damage:
    """Replace an occurrence (-1 is the last) of bytes that must be there."""

    def change(data: bytes) -> bytes:
        place = [found.start() for found in re.finditer(re.escape(old), data)][which]
        return data[:place] + new + data[place + len(old) :]

    return change


def flip(place: int) -> Damage:
    return lambda data: data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def refused(tmp_path: Path, source: Path, **options: Any) -> str:
    """The message of a build that must fail and leave nothing."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as caught:
        build(tmp_path / "store.zarr", source, **{"vocab_size": 300, **options})
    assert not isinstance(caught.value, FoundBad)
    assert sorted(tmp_path.rglob("*")) == before
    return str(caught.value)


def changed(path: Path, change: Damage) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path
