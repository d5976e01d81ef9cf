"""Making a file, or the names in a folder, survive a power cut."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """fsync a file or folder. Raises OSError; a full disk or quota of a network filesystem may show only here."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
