"""The folder beside a store in which it is built: locked, and kept where a build that stopped can go on from it."""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...config.errors import UserError
from .crew import Unfinished
from .workspace import PLAN, Workspace

LOCK = ".lock"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DYING_S = 0.3


def building_folder(store: Path) -> Path:
    """The folder in which a store is built. Raises UserError for a name that no store can have."""
    if not store.name:
        raise UserError(f"STORE {store}", "has no name", "give the store a name, such as stores/text.zarr")
    if store.parent.exists() and not store.parent.is_dir():
        raise UserError(f"STORE {store}", f"{store.parent} is not a folder", "give a path whose parents are folders")
    return store.with_name(f".{store.name}.building")


@contextmanager
def folder_beside(store: Path) -> Iterator[Workspace]:
    """The locked folder beside the store, as the build before left it; removed if the block fails with nothing done.

    A build that was stopped from outside (Ctrl-C, a full disk, a killed worker) keeps what is done, and a full disk
    then is an Unfinished that says so. A mistake of the user keeps nothing.
    """
    folder = building_folder(store)
    made = _make_parents(store.parent)
    try:
        lock = _lock(folder)
        space = Workspace(folder)
        try:
            _clean(folder)
            yield space
        except BaseException as error:
            if not _is_worth_keeping(space, error):
                shutil.rmtree(folder, ignore_errors=True)
                raise
            if isinstance(error, OSError) and error.errno in _FULL:
                remedy = "free some space, and the same command goes on where it was"
                raise Unfinished(str(error.filename or store), str(error.strerror), remedy) from None
            raise
        finally:
            os.close(lock)
    except BaseException as error:
        if not (folder / PLAN).exists():
            discard(folder)
        for parent in made:
            _remove_if_empty(parent)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(store)
        raise


def is_left_from(store: Path) -> bool:
    """Whether a build that stopped left work from which the same command goes on."""
    return _has_work(Workspace(building_folder(store)))


def empty(space: Workspace) -> None:
    """Remove everything but the lock: what is there is of another build."""
    for entry in space.folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def remove_work(space: Workspace) -> None:
    """Remove the folder of a store that is published; what jobs of a cluster print into stays while they end."""
    space.plan.unlink()  # first: without it there is nothing to go on from
    for entry in space.folder.iterdir():
        if entry.is_dir() and entry != space.jobs_folder:
            shutil.rmtree(entry)
        elif not entry.is_dir() and entry.name != LOCK:
            entry.unlink()
    if not space.jobs_folder.exists():
        shutil.rmtree(space.folder)


def _is_worth_keeping(space: Workspace, error: BaseException) -> bool:
    stopped = not isinstance(error, UserError) or isinstance(error, Unfinished)
    return stopped and _has_work(space)


def _has_work(space: Workspace) -> bool:
    return space.plan.exists() and any((space.folder / "parts").glob("*.json"))


def _clean(folder: Path) -> None:
    """Remove what killed workers were writing."""
    for name in (".", "parts", "dropped", "shards", "tokenizer"):
        for file in (folder / name).glob(".*.tmp"):
            file.unlink()


def _lock(folder: Path) -> int:
    """Make the folder and lock it; a killed build's lock is gone with it. Raises UserError if a build is running."""
    give_up = time.monotonic() + _DYING_S
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
            if time.monotonic() < give_up:
                time.sleep(0.02)
                continue
            raise UserError(f"STORE {folder}", "another build is writing it", "wait for it") from None
        except OSError:
            return lock  # a file system without locks: two builds of one store at once are the user's to avoid
        try:
            if os.path.samestat(os.fstat(lock), os.stat(folder / LOCK)):
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)


def discard(folder: Path) -> None:
    """Remove the folder, which a stopped build may have left, unless a build holds its lock."""
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
