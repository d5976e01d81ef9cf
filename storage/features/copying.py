"""Writing beside a place and renaming: a file by changing a copy of it, a folder from nothing; one writer at a time."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...config.errors import UserError
from ..durable import sync


@contextmanager
def copy_beside(path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A copy of a file, empty where there is no file, that takes its place at the end if `keep` was called.

    The copy is the lock as well: one writer at a time. What a killed writer left is written over. Raises UserError if
    another one writes, or the folder does not exist.
    """
    if not path.parent.is_dir():
        raise UserError(str(path), f"{path.parent} is not a folder", "give a file in a folder that exists")
    path = path.resolve() if path.is_symlink() else path  # the file behind a link is the one to replace
    if path.is_dir():
        raise UserError(str(path), "is a folder", "give the name of a file")
    beside = path.with_name(f".{path.name}.importing")
    lock = _lock(beside, lambda: os.open(beside, os.O_RDWR | os.O_CREAT, 0o666))
    kept: list[bool] = []
    try:
        before = _copy(path, beside)
        yield beside, lambda: kept.append(True)
        if kept:
            sync(beside)
            if _state(path) != before:  # possible only where the file system has no locks
                raise UserError(str(path), "another import finished first", "import again")
            os.rename(beside, path)
            sync(path.parent)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        kept.clear()
        raise
    finally:
        if not kept:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
        os.close(lock)


def _copy(path: Path, beside: Path) -> tuple[int, ...] | None:
    """Copy the file, if there is one; what it was."""
    before = _state(path)
    if before is None:
        os.truncate(beside, 0)
    else:
        shutil.copyfile(path, beside)
        shutil.copymode(path, beside)
    return before


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _lock(beside: Path, make: Callable[[], int]) -> int:
    """Make and lock what is beside; a killed writer's lock is gone with it. Raises UserError if one is at work."""
    while True:
        lock = make()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise UserError(str(beside), "another process is writing it", "wait for it") from None
        except OSError:
            return lock  # a file system without locks
        try:
            if os.path.samestat(os.fstat(lock), os.stat(beside)):
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)  # the writer before has just renamed or removed it


@contextmanager
def folder_beside(target: Path, where: str) -> Iterator[Path]:
    """An empty folder that becomes `target` at the end, and is gone if the block fails.

    `where` is what messages call the target. Raises UserError if it exists, its parent does not, or another process is
    writing it; OSError with a name if the disk refuses.
    """
    if os.path.lexists(target):
        raise UserError(where, "exists already", "give another name, or remove it first")
    if not target.name or not target.parent.is_dir():
        raise UserError(where, f"{target.parent} is not a folder", "give a name in a folder that exists")
    beside = target.with_name(f".{target.name}.writing")
    try:
        lock = _lock(beside, lambda: _open_folder(beside))
        try:
            for entry in beside.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            yield beside
            os.rename(beside, target)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        finally:
            os.close(lock)
    except OSError as error:
        error.filename = str(target)
        raise
    sync(target.parent)


def _open_folder(folder: Path) -> int:
    folder.mkdir(exist_ok=True)
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
