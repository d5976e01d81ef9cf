"""The folder beside a store in which it is built: locked, emptied of what a killed build left, removed on failure."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...config.errors import UserError

LOCK = ".lock"


@contextmanager
def folder_beside(store: Path) -> Iterator[Path]:
    """An empty, locked folder beside the store, removed if the block fails."""
    if not store.name:
        raise UserError(f"STORE {store}", "has no name", "give the store a name, such as stores/text.zarr")
    folder = store.with_name(f".{store.name}.building")
    if store.parent.exists() and not store.parent.is_dir():
        raise UserError(f"STORE {store}", f"{store.parent} is not a folder", "give a path whose parents are folders")
    made = _make_parents(store.parent)
    try:
        lock = _lock(folder)
        try:
            _empty(folder)
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            os.close(lock)
    except BaseException as error:
        _discard(folder)
        for parent in made:
            _remove_if_empty(parent)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(store)
        raise


def _lock(folder: Path) -> int:
    """Make the folder and lock it; a killed build's lock is gone with it. Raises UserError if a build is running."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # the other build just renamed or removed the folder
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise UserError(f"STORE {folder}", "another build is writing it", "wait for it") from None
        except OSError:
            return lock  # a file system without locks: two builds of one store at once are the user's to avoid
        try:
            if os.path.samestat(os.fstat(lock), os.stat(folder / LOCK)):
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)


def _discard(folder: Path) -> None:
    """Remove the folder, which a Ctrl-C just after its making may have left, unless a build holds its lock."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:  # it is gone, as it should be, or the disk refuses this too
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        pass
    finally:
        os.close(lock)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def _make_parents(folder: Path) -> list[Path]:
    """Make a folder and its parents; those that were made, innermost first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
