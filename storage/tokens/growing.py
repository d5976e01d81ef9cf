"""Replacing files of a store by those of its next generation, so that a kill at any moment loses neither.

What is new is gathered, whole and durable, in STORE/.append. zarr.json then says `pending`; files are renamed to their
places, each a longer one of the same beginning, and the new zarr.json comes last. Until then the store is the old one.
"""

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ...config.errors import FoundBad
from ..durable import sync
from .store import DOCUMENTS, INVENTORY, LOSS_MASK, METADATA, read_info, write_info

STAGED = ".append"
# In this order after all others: what says how the files are, then what says that they are the store's.
_LAST = (INVENTORY, METADATA)


def publish_append(store: Path, staged: Path) -> None:
    """Make `staged`, the new and replacing files of a store with zarr.json and inventory.json, part of it."""
    place = store / STAGED
    staged.rename(place)
    sync(store)
    write_info(store, replace(read_info(store), pending=True))
    sync(store)
    finish_append(store)


def finish_append(store: Path) -> bool:
    """Do what a stopped append left to do, if it had begun to replace files; whether it had. Raises OSError.

    What one left that was stopped before, the next append removes.
    """
    place = store / STAGED
    if not read_info(store).pending:
        return False
    if not place.is_dir():
        remedy = "restore the store from a copy, or build it again"
        raise FoundBad(str(place), "missing, and an append needs it to be finished", remedy)
    _move(place, store)
    shutil.rmtree(place, ignore_errors=True)
    return True


def discard_staged(store: Path) -> None:
    """Remove what an append left that was stopped before it replaced files, or after; none may be at work."""
    if (store / STAGED).exists() and not read_info(store).pending:
        shutil.rmtree(store / STAGED)


def _move(place: Path, store: Path) -> None:
    names = [str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()]
    for name in sorted(names, key=lambda name: (_LAST.index(name) if name in _LAST else -1, name)):
        if name in _LAST:  # what they speak of must have its names first
            for folder in (store / "c", store / DOCUMENTS / "c", store / DOCUMENTS, store):
                sync(folder)
            if (store / LOSS_MASK).is_dir():
                sync(store / LOSS_MASK / "c")
                sync(store / LOSS_MASK)
        with suppress(FileNotFoundError):  # another process finishes it too
            (place / name).rename(store / name)
    sync(store)
