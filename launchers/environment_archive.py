"""The Python environment of a run as one file, from which every node has a copy on its own disk (launchers/staged.py).

Thousands of ranks that import torch open millions of small files; a shared file system is then slow for everybody. One
file is read in one go. It is made once per state of the environment and shared by all runs in the same folder.
"""

import hashlib
import io
import json
import os
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..config.errors import UserError
from ..config.rundir import shared_environments
from .staged import ABOUT, Hashed

_SYSTEM = ("/usr", "/bin", "/opt/python")
"""Installations that are taken to be on every node."""
_ASK = "import sys; print(sys.executable, sys.prefix, sys.base_prefix, sep='\\n')"
_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Environment:
    """An archive and what names it."""

    archive: Path
    sha256: str
    num_bytes: int


def pack_environment(runs: Path, python: str) -> Environment:
    """The archive of the environment of interpreter `python`, made if there is none of its present state.

    Raises UserError if the interpreter cannot be run.
    """
    trees, about = _trees(python)
    store = shared_environments(runs)
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = store / _state_of(trees)
    if not place.is_dir():
        beside = store / f".{place.name}.partial-{secrets.token_hex(4)}"
        beside.mkdir(mode=0o700)
        try:
            digest = _pack(beside / "environment.tar", trees, about)
            (beside / "sha256").write_text(digest, encoding="ascii")
            if not place.is_dir():
                beside.rename(place)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    archive = place / "environment.tar"
    digest = (place / "sha256").read_text(encoding="ascii")
    return Environment(archive=archive, sha256=digest, num_bytes=archive.stat().st_size)


def _trees(python: str) -> tuple[dict[str, Path], dict[str, str]]:
    """Folders by their name in the archive, and what the archive says of itself."""
    try:
        done = subprocess.run(
            [python, "-c", _ASK], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True, cwd="/"
        )
        executable, prefix, base = done.stdout.splitlines()[-3:]
    except (OSError, ValueError, subprocess.SubprocessError):
        raise UserError("cluster.python", f"{python} does not say where its environment is", "give a Python") from None
    if not Path(executable).is_relative_to(prefix):
        problem = f"{executable} lies outside of its environment {prefix}"
        raise UserError("cluster.stage_environment", problem, "use a virtual environment or a conda environment")
    trees = {"env": Path(prefix)}
    if base != prefix and not _is_systems(base):
        trees["base"] = Path(base)
    if _is_systems(prefix):
        problem = f"{prefix} belongs to the system"
        raise UserError("cluster.stage_environment", problem, "use a virtual environment, or leave it out")
    return trees, {"python": f"env/{Path(executable).relative_to(prefix)}", "base": base}


def _is_systems(installation: str) -> bool:
    return any(Path(installation).is_relative_to(place) for place in _SYSTEM)


def _entries(trees: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    """Name in the archive and path of everything in the folders, in a fixed order."""
    alone = not _shows_packages_of_base(trees["env"])
    for tree, top in trees.items():
        for folder, folders, names in os.walk(top):
            left_out = ("site-packages", "test", "include") if tree == "base" and alone else ()
            folders[:] = sorted(name for name in folders if name not in left_out)
            links = [name for name in folders if Path(folder, name).is_symlink()]  # os.walk does not go into them
            for name in sorted([*names, *links]):
                if not name.endswith(".a"):  # for linking only
                    path = Path(folder, name)
                    yield f"{tree}/{path.relative_to(top).as_posix()}", path


def _shows_packages_of_base(env: Path) -> bool:
    """Whether a virtual environment has the packages of its installation too."""
    settings = env / "pyvenv.cfg"
    words = settings.read_text(encoding="utf-8").lower().split() if settings.is_file() else []
    return "include-system-site-packages = true" in " ".join(words)


def _state_of(trees: dict[str, Path]) -> str:
    """Names the state of the folders by name, size and time of each file: reading all of them takes too long."""
    state = hashlib.sha256()
    for name, path in _entries(trees):
        found = path.lstat()
        state.update(f"{name} {path} {found.st_mode} {found.st_size} {found.st_mtime_ns}\n".encode(errors="replace"))
    return state.hexdigest()[:32]


def _pack(path: Path, trees: dict[str, Path], about: dict[str, str]) -> str:
    """Write the archive; its SHA-256."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        hashed = Hashed(file)
        with tarfile.open(fileobj=hashed, mode="w|", bufsize=1 << 20) as archive:  # type: ignore[call-overload]
            text = json.dumps(about).encode()
            member = tarfile.TarInfo(ABOUT)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
            for name, entry in _entries(trees):
                archive.add(entry, arcname=name, recursive=False)
        os.fsync(file.fileno())
    return hashed.sha256.hexdigest()
