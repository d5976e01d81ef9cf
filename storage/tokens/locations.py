"""Where a store lies: a folder, or a URL in an object store. What both are read by, a path says in pathlib's words."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from ...config.errors import FoundBad, UserError
from ...config.urls import check_url, is_url, without_secrets
from .digest import digest_text, new_digest
from .objects import ObjectPath
from .shards import REMEDY

Location = Path | ObjectPath
"""Of a path, what ObjectPath has too may be used: `/`, name, with_name, stat, exists, is_file, is_dir, read_bytes."""
_PIECE_BYTES = 8 << 20


def locate(text: str | Path) -> Location:
    """The folder or URL that a text names. Raises UserError for a URL that cannot be one, or holds a password."""
    if isinstance(text, Path) or not is_url(text):
        return Path(text)
    try:
        return ObjectPath(check_url(text))
    except ValueError as error:
        problem, _, remedy = str(error).partition(": ")
        raise UserError(without_secrets(text), problem, remedy) from None


def pieces(place: Location) -> Iterator[bytes]:
    """The bytes of a file, some MiB at a time. Raises FileNotFoundError if it is missing."""
    if isinstance(place, ObjectPath):
        yield from place.pieces(_PIECE_BYTES)
        return
    with place.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def verified_pieces(place: Location, expected: tuple[int, str]) -> Iterator[bytes]:
    """As `pieces`. Raises FoundBad if the file is missing or, after the last, not of this size in bytes and digest."""
    digest, size = new_digest(), 0
    try:
        for piece in pieces(place):
            digest.update(piece)
            size += len(piece)
            yield piece
    except FileNotFoundError:
        raise FoundBad(str(place), "missing", REMEDY) from None
    if (size, digest_text(digest)) != expected:
        problem = f"is not the recorded one ({size} bytes instead of {expected[0]}, or another digest)"
        raise FoundBad(str(place), problem, REMEDY)


def file_digest(place: Location) -> tuple[int, str]:
    """Size in bytes and digest of a file, read in pieces."""
    size, summed = 0, new_digest()
    for piece in pieces(place):
        summed.update(piece)
        size += len(piece)
    return size, digest_text(summed)


def check_size(path: Location, size_bytes: int) -> None:
    """Raises FoundBad naming the file unless it is there and as long as it should be."""
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise FoundBad(str(path), "missing", REMEDY) from None
    _compare(path, size, size_bytes)


def check_sizes(folder: Location, expected: Mapping[str, int]) -> None:
    """check_size of files below a folder, by name; objects are listed, many at a time, where a store can list them."""
    known = folder.sizes() if isinstance(folder, ObjectPath) else None
    for name, size_bytes in expected.items():
        if known is None:
            check_size(folder / name, size_bytes)
        elif name not in known:
            raise FoundBad(str(folder / name), "missing", REMEDY)
        else:
            _compare(folder / name, known[name], size_bytes)


def _compare(path: Location, size: int, expected: int) -> None:
    if size != expected:
        kind = "truncated" if size < expected else "too long"
        raise FoundBad(str(path), f"{kind} ({size} bytes instead of {expected})", REMEDY)
