"""Looking for keys where none may be: in the command lines of all processes, and in all files below some folders."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_EVERY_S = 0.2


@contextmanager
def commands_seen() -> Iterator[set[str]]:
    """Command lines of all processes of this machine that were there meanwhile, as `ps` would show them."""
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(_EVERY_S):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:  # it has ended
                    continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def files_with(folders: Sequence[Path], needles: Sequence[str]) -> list[Path]:
    """Files below the folders that hold one of the needles; links are not followed."""
    wanted = [needle.encode() for needle in needles]
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                found += [path] if any(needle in data for needle in wanted) else []
    return sorted(found)
