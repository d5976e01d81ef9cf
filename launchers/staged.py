"""A rank whose Python environment lies on its own node: unpacked there once, then run. Standard library alone.

    python -I -S .../launchers/staged.py FOLDER SHA256 ARCHIVE ARGUMENT...

The first rank of a node unpacks the archive below FOLDER, the others wait; each becomes the interpreter there with the
arguments. A node whose disk refuses is left (exit code 86); a damaged archive ends the run (93).
"""

import fcntl
import hashlib
import json
import os
import shutil
import stat
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

UNHEALTHY, DO_NOT_RESTART = 86, 93  # as config/verdicts.py has them; it cannot be imported yet
ABOUT = "environment.json"
"""First in the archive: {"python": path of the interpreter, "base": path of the installation that it belongs to}."""


_TRUSTED: Any = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
"""Python before 3.11.4 has no other way to extract."""


class Damaged(Exception):
    """The archive is not what was submitted."""


def main(folder: str, digest: str, archive: str, *arguments: str) -> int:
    """Become `python ARGUMENT...` in the environment; an exit code if that cannot be."""
    try:
        home = unpacked(Path(folder), digest, Path(archive))
    except Damaged as error:
        print(f"trainwright: {archive}: {error}; submit the run again", file=sys.stderr)
        return DO_NOT_RESTART
    except OSError as error:
        words = f"{error.filename or folder}: {error.strerror}"
        print(f"trainwright: cluster.stage_environment: {words}; this node is left", file=sys.stderr)
        return UNHEALTHY
    python = str(home / json.loads((home / ABOUT).read_text())["python"])
    sys.stdout.flush()
    return os.execv(python, [python, *arguments])


def unpacked(folder: Path, digest: str, archive: Path) -> Path:
    """Where the environment lies on this node, whole. Raises Damaged, or OSError for what the node's disk refuses."""
    home = folder / f"trainwright-{os.getuid()}-{digest[:16]}"
    with _locked(home.with_name(f".{home.name}.lock")):
        if home.exists():
            _require_own(home)
            return home
        for old in folder.glob(f".{home.name}.partial-*"):  # of a rank that was killed
            shutil.rmtree(old, ignore_errors=True)
        partial = home.with_name(f".{home.name}.partial-{os.getpid()}")
        began = time.monotonic()
        try:
            _unpack(archive, digest, partial)
            _set_home(partial, home)
            partial.rename(home)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        print(f"environment unpacked to {home} in {time.monotonic() - began:.1f} s", flush=True)
    return home


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _require_own(home: Path) -> None:
    """Where everybody may write, nobody else's folder is taken for ours."""
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(1, "is not a folder of this user alone", str(home))


class Hashed:
    """A file whose bytes are hashed as they are read or written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        return data


def _unpack(archive: Path, digest: str, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    try:
        file = archive.open("rb")
    except OSError as error:
        raise Damaged(str(error.strerror)) from None
    with file:
        hashed = Hashed(file)
        try:
            with tarfile.open(fileobj=hashed, mode="r|", bufsize=1 << 20) as members:  # type: ignore[call-overload]
                members.extractall(folder, **_TRUSTED)  # its digest is held against what we packed
        except tarfile.TarError as error:
            raise Damaged(str(error)) from None
        while hashed.read(1 << 20):
            pass
    if hashed.sha256.hexdigest() != digest:
        raise Damaged("is not what was submitted: its SHA-256 differs")


def _set_home(folder: Path, home: Path) -> None:
    """A virtual environment names the installation that it belongs to: lead it to the one that came along."""
    base = json.loads((folder / ABOUT).read_text())["base"]
    settings = folder / "env" / "pyvenv.cfg"
    if not (folder / "base").is_dir() or not settings.is_file():
        return
    lines = settings.read_text().splitlines()
    lines = [f"home = {home}/base/bin" if line.partition("=")[0].strip() == "home" else line for line in lines]
    settings.write_text("\n".join(lines) + "\n")
    for link in (folder / "env" / "bin").iterdir():
        if link.is_symlink() and os.readlink(link).startswith(f"{base}/"):
            target = f"{home}/base/{os.readlink(link)[len(base) + 1 :]}"
            link.unlink()
            link.symlink_to(target)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
