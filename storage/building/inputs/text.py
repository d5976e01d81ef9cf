"""Text files: one file is one document."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from .base import MAX_DOCUMENT_BYTES, Sized, TextInput, bad, open_file


@dataclass
class TextFiles(TextInput):
    """Files in a fixed order, with their sizes; reading them notes the ones that are not text."""

    files: list[tuple[str, int]]
    """Path and size in bytes of each."""
    skipped: set[str] = field(default_factory=set)
    """Paths that turned out not to be UTF-8 text."""

    def __post_init__(self) -> None:
        self._size_bytes = sum(size for _, size in self.files)

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    @property
    def text_bytes(self) -> int:
        return self._size_bytes

    def texts(self) -> Iterator[Sized]:
        """Text and size in bytes of every file that is text."""
        for path, size in self.files:
            text = read_text(path)
            if text is None:
                self.skipped.add(path)
            else:
                yield text, size

    def sample(self, every: int) -> "TextFiles":
        return TextFiles(self.files[::every])


def text_files(paths: list[str]) -> TextFiles:
    """Text files by path. Raises UserError naming one that is too large to be a document."""
    return TextFiles([(path, _size(path)) for path in paths])


def _size(path: str) -> int:
    size = os.stat(path).st_size
    if size > MAX_DOCUMENT_BYTES:
        limit = MAX_DOCUMENT_BYTES >> 20
        problem = f"{size >> 20} MiB in one file, and a file is one document of at most {limit} MiB"
        raise bad(path, problem, "split it into its documents, or leave it out with --exclude")
    return size


def read_text(path: str) -> str | None:
    """Text of a file exactly as it is, or None if it is not UTF-8 or holds a NUL."""
    with open_file(path) as file:
        data = file.read()
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None
