"""Copying a store between folders and object stores: every file read back at the end, and zarr.json written last."""

import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ...config.errors import FoundBad, UserError
from ..durable import sync, write_durably, write_pieces_durably
from ..tokens.inventory import read_inventory
from ..tokens.locations import Location, file_digest, verified_pieces
from ..tokens.objects import ObjectPath
from ..tokens.store import INVENTORY, METADATA, StoreInfo, read_info
from .packing import PACKING, packing_files, packings_of

Expected = dict[str, tuple[int, str]]
"""Size in bytes and digest of files, by path in the store."""
Progress = Callable[[str, int, int], None]
"""Called with what is done (`copy` or `check`), the bytes done, and the bytes in all. Threads call it."""
_AT_ONCE = 4  # files; what waits for one uses the time of another
_MARGIN_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All that a store is made of."""

    info: StoreInfo
    metadata: bytes
    """Its zarr.json."""
    files: Expected
    """Everything else, packing indices too."""

    @property
    def size_bytes(self) -> int:
        return len(self.metadata) + sum(size for size, _ in self.files.values())

    def packings_alone(self) -> "Contents":
        """Only the packing indices, which may be made long after the rest."""
        return self._only(lambda name: name.startswith(f"{PACKING}/"))

    def without_packings(self) -> "Contents":
        """All but these."""
        return self._only(lambda name: not name.startswith(f"{PACKING}/"))

    def _only(self, wanted: Callable[[str], bool]) -> "Contents":
        return replace(self, files={name: each for name, each in self.files.items() if wanted(name)})


def contents_of(store: Location, packings: list[tuple[int, int]] | None = None) -> Contents:
    """What to copy: the inventory's files and packing indices (those given as generation and length, else all).

    Raises UserError if there is no store, FoundBad naming zarr.json or inventory.json if it is damaged.
    """
    info = read_info(store)
    if info.pending:
        problem = "an append was stopped while it replaced files"
        raise FoundBad(str(store / METADATA), problem, "finish it with `trainwright data verify` first")
    files = {**read_inventory(store, info).expected, INVENTORY: (info.inventory_bytes, info.inventory_digest)}
    for generation, length in (packings_of(store) or []) if packings is None else packings:
        files |= packing_files(store, length, generation)
    return Contents(info=info, metadata=(store / METADATA).read_bytes(), files=files)


def copy_store(source: Location, contents: Contents, target: Location, progress: Progress) -> int:
    """Copy a store's contents; the bytes that were not there yet. What a copy that was killed left is used.

    At the end every file is read back. Raises UserError if something else is there, the disk is too small or another
    copy is at work; FoundBad naming a file that is bad in the source.
    """
    there = _metadata(target)
    if there is not None and there != contents.metadata:
        remedy = "give another name, or remove it first"
        raise UserError(str(target), f"another store is there (generation {read_info(target).generation})", remedy)
    if isinstance(target, ObjectPath):
        copied = _fill(source, contents, target, progress)
        if there is None:
            (target / METADATA).put(contents.metadata)
        return copied
    if there is not None:
        return _fill(source, contents, target, progress)
    if os.path.lexists(target):
        raise UserError(str(target), "exists already, and is not a store", "give another name, or remove it first")
    with _building(target) as beside:
        copied = _fill(source, contents, beside, progress)
        for path in [path for path in beside.rglob("*") if path.is_file()]:
            if str(path.relative_to(beside)) not in contents.files:
                path.unlink()
        write_durably(beside / METADATA, contents.metadata)
        sync(beside)
        beside.rename(target)
        sync(target.parent)
    return copied


def beside_of(target: Path) -> Path:
    """The folder in which a copy grows until it is whole."""
    return target.with_name(f".{target.name}.copying")


@contextmanager
def _building(target: Path) -> Iterator[Path]:
    """The folder beside `target`, locked by this process."""
    if not target.parent.is_dir():
        raise UserError(str(target), f"{target.parent} is not a folder", "make it first")
    beside = beside_of(target)
    beside.mkdir(exist_ok=True)
    lock = os.open(beside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(str(target), "another copy to it is at work", "wait for it") from None
        if not beside.exists() or os.fstat(lock).st_ino != beside.stat().st_ino:
            raise UserError(str(target), "appeared meanwhile", "look whether it is what you want")
        yield beside
    except FoundBad:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    finally:
        with suppress(OSError):  # unless empty, it is what the next copy goes on with
            beside.rmdir()
        os.close(lock)


def _metadata(target: Location) -> bytes | None:
    try:
        return (target / METADATA).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _fill(source: Location, contents: Contents, place: Location, progress: Progress) -> int:
    """Copy what is missing or of another size, then read everything back, and copy once more what is not as it was."""
    sizes = _sizes(place, contents.files)
    absent = {name: each for name, each in contents.files.items() if sizes.get(name) != each[0]}
    need = sum(size for size, _ in absent.values())
    if isinstance(place, Path):
        _check_room(place, need)
    _each(absent, "copy", progress, lambda name: _copy(source / name, place / name, contents.files[name]))

    def check(name: str) -> None:
        expected = contents.files[name]
        if file_digest(place / name) != expected:
            _copy(source / name, place / name, expected)
            if file_digest(place / name) != expected:
                raise FoundBad(str(place / name), "is not what was written", "check the disk, and copy again")

    _each(contents.files, "check", progress, check)
    if isinstance(place, Path):
        for folder in {(place / name).parent for name in contents.files}:
            sync(folder)
    return need


def _each(files: Expected, what: str, progress: Progress, do: Callable[[str], None]) -> None:
    done, total, lock = 0, sum(size for size, _ in files.values()), threading.Lock()

    def one(name: str) -> None:
        nonlocal done
        do(name)
        with lock:
            done += files[name][0]
            progress(what, done, total)

    progress(what, 0, total)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix=what) as pool:
        _all(pool.map(one, files))


def _all(results: Iterable[None]) -> None:
    for _ in results:
        pass


def _sizes(place: Location, files: Expected) -> dict[str, int]:
    """Size of each file that is there."""
    listed = place.sizes() if isinstance(place, ObjectPath) else None
    if listed is not None:
        return listed
    return {name: (place / name).stat().st_size for name in files if (place / name).exists()}


def _check_room(place: Path, need: int) -> None:
    free, margin = shutil.disk_usage(place).free, _MARGIN_BYTES + need // 50
    if need and free < need + margin:
        problem = f"{free:,} bytes are free, and {need + margin:,} are needed (a margin of {margin:,} included)"
        raise UserError(str(place.parent), problem, "free some space or give another folder")


def _copy(source: Location, target: Location, expected: tuple[int, str]) -> None:
    """Copy one file; it appears whole, if it is as expected."""
    if isinstance(target, ObjectPath):
        target.put_pieces(verified_pieces(source, expected))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    write_pieces_durably(target, verified_pieces(source, expected))
