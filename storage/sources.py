"""The text that a store is built from: which files, in which order, and their text. One file is one document."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from ..config.errors import UserError

MAX_FILE_BYTES = 64 << 20
_TRAINING_BYTES = 512 << 20


@dataclass(frozen=True)
class Selection:
    """Which files of a source folder are taken. Hidden files, and folders with a zarr.json, never are."""

    extensions: tuple[str, ...] = ()
    """File name endings such as `.py`; all if empty."""
    exclude: tuple[str, ...] = ()
    """Names, or patterns with * and ?, of files and folders to leave out."""

    def takes(self, name: str) -> bool:
        """Whether a file of this name is taken."""
        return self.enters(name) and (not self.extensions or name.endswith(self.extensions))

    def enters(self, name: str) -> bool:
        """Whether a folder of this name is looked into."""
        return not name.startswith(".") and not any(fnmatchcase(name, pattern) for pattern in self.exclude)


@dataclass
class TextFiles:
    """Files in a fixed order, with their sizes; reading them counts the ones that are not text."""

    files: list[tuple[str, int]]
    """Path and size in bytes of each."""
    skipped: set[str] = field(default_factory=set)
    """Paths that turned out not to be UTF-8 text."""

    @property
    def size_bytes(self) -> int:
        return sum(size for _, size in self.files)

    def texts(self) -> Iterator[tuple[str, int]]:
        """Text and size in bytes of every file that is text."""
        for path, size in self.files:
            text = read_text(path)
            if text is None:
                self.skipped.add(path)
            else:
                yield text, size

    def training_part(self) -> "TextFiles":
        """Files to train a tokenizer on: all up to 512 MiB, else every n-th, so that about that much is read."""
        return TextFiles(self.files[:: max(1, -(-self.size_bytes // _TRAINING_BYTES))])


def list_files(sources: Sequence[Path], selection: Selection) -> TextFiles:
    """Files of all sources in order; a folder's are sorted by path, bytewise, whatever the disk's own order.

    Raises UserError naming the source if there is none, it is neither folder nor file, or nothing is left to read.
    """
    files: list[tuple[str, int]] = []
    for source in sources:
        if source.is_dir():
            found = _walk(source, selection)
        elif source.is_file():
            found = [str(source)]
        else:
            problem = "not a folder or file" if source.exists() else "no such file or folder"
            raise UserError(f"SOURCE {source}", problem, "give folders or text files")
        if not found:
            raise UserError(f"SOURCE {source}", "holds no file to read", "check --extension and --exclude")
        files += [(path, _size(path)) for path in found]
    return TextFiles(files)


def _walk(folder: Path, selection: Selection) -> list[str]:
    def complain(error: OSError) -> None:
        raise error

    found: list[tuple[tuple[bytes, ...], str]] = []
    for place, folders, names in os.walk(folder, onerror=complain):
        if "zarr.json" in names:
            folders.clear()
            continue
        folders[:] = [name for name in folders if selection.enters(name)]
        for name in names:
            path = os.path.join(place, name)
            if selection.takes(name) and os.path.isfile(path):
                found.append((tuple(map(os.fsencode, Path(path).parts)), path))
    return [path for _, path in sorted(found)]


def _size(path: str) -> int:
    size = os.stat(path).st_size
    if size > MAX_FILE_BYTES:
        limit = MAX_FILE_BYTES >> 20
        problem = f"{size >> 20} MiB in one file, and a file is one document of at most {limit} MiB"
        raise UserError(f"SOURCE {path}", problem, "split it into its documents, or leave it out with --exclude")
    return size


def read_text(path: str) -> str | None:
    """Text of a file exactly as it is, or None if it is not UTF-8 or holds a NUL."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise UserError(f"SOURCE {path}", "vanished while it was read", "build again") from None
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None
