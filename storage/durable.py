"""Files that are whole or absent, and survive a power cut."""

import os
from collections.abc import Iterable
from pathlib import Path


def sync(path: Path) -> None:
    """fsync a file or folder. Raises OSError; a full disk or quota of a network filesystem may show only here."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file beside its place, flush it to the disk, and rename it; the folder's names are the caller's to sync.

    Raises OSError with the file's name if the disk refuses; then nothing is left.
    """
    write_pieces_durably(path, [data])


def write_pieces_durably(path: Path, pieces: Iterable[bytes]) -> None:
    """As write_durably, of pieces one after another; what making them raises is raised, and nothing is left."""
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with beside.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(beside)):
            error.filename = str(path)
        raise
