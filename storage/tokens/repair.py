"""Restoring what is damaged in a store from a second copy of it: `trainwright data verify STORE --repair FROM`."""

from collections.abc import Callable
from pathlib import Path

from ...config.errors import FoundBad, UserError
from ..durable import sync, write_pieces_durably
from .inventory import Inventory, read_inventory
from .locations import Location, file_digest, verified_pieces
from .store import INVENTORY, METADATA, StoreInfo, read_info

_ELSEWHERE = "restore it from another copy, or build the store again"
Progress = Callable[[int, int], None]
"""Called with the bytes checked and the bytes in all."""


def repair_store(store: Path, source: Location, progress: Progress) -> list[str]:
    """Replace every file of `store` that is missing or not the recorded one by that of `source`; their names.

    Each is written beside its place, checked and renamed. Raises UserError if `source` is no store or not a copy of
    this one, FoundBad naming a file that is bad in both; what was repaired until then stays repaired.
    """
    info, own_metadata = _agreed(store, source)
    inventory, own_inventory = _inventory(store, source, info)
    wanted = inventory.expected
    repaired, done = [], 0
    for name, expected in wanted.items():
        if not _is_good(store / name, expected):
            _fetch(source / name, store / name, expected)
            repaired.append(name)
        done += expected[0]
        progress(done, info.size_bytes)
    if not own_inventory:
        _fetch(source / INVENTORY, store / INVENTORY, (info.inventory_bytes, info.inventory_digest))
        repaired.append(INVENTORY)
    if not own_metadata:  # last: it is what makes the folder a store
        _fetch(source / METADATA, store / METADATA, file_digest(source / METADATA))
        repaired.append(METADATA)
    return repaired


def _agreed(store: Path, source: Location) -> tuple[StoreInfo, bool]:
    """What both say of the store, and whether its own zarr.json is sound."""
    if not store.is_dir():
        raise UserError(str(store), "no such folder", "copy the second copy instead")
    theirs = read_info(source)
    try:
        mine = read_info(store)
    except UserError:  # FoundBad is one
        return theirs, False
    if (mine.generation, mine.inventory_digest) != (theirs.generation, theirs.inventory_digest):
        problem = f"not a copy of {store}: generation {theirs.generation} against {mine.generation}, or other documents"
        raise UserError(f"--repair {source}", problem, "give a copy of the same generation")
    return mine, True


def _inventory(store: Path, source: Location, info: StoreInfo) -> tuple[Inventory, bool]:
    try:
        return read_inventory(store, info), True
    except FoundBad:
        return read_inventory(source, info), False


def _is_good(path: Path, expected: tuple[int, str]) -> bool:
    try:
        return path.stat().st_size == expected[0] and file_digest(path) == expected
    except OSError:  # missing, or the disk refuses to read it
        return False


def _fetch(source: Location, target: Path, expected: tuple[int, str]) -> None:
    """Copy a file, and rename it into place if its size and digest are the expected ones."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_pieces_durably(target, verified_pieces(source, expected))
    except FoundBad as error:
        problem = "missing here too" if error.problem == "missing" else "is bad here too"
        raise FoundBad(error.where, problem, _ELSEWHERE) from None
    sync(target.parent)
