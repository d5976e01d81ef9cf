"""The git work tree from which a run is submitted: its commit, and what is not committed as one patch.

Files that git ignores are left out, since keys are kept in them; so are untracked ones that are large or have names of
key files. Nothing in the repository is changed: an index of our own is used.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .environment import secret_values

MAX_UNTRACKED_BYTES = 256 << 10
"""Largest untracked file that goes into the patch."""
MAX_PATCH_BYTES = 16 << 20
_TIMEOUT_S = 30.0
_KEY_FILES = (".env*", "*.env", ".netrc", "*.pem", "*.key", "id_rsa*", "id_ed25519*", "*credentials*", "*secret*")


@dataclass(frozen=True, kw_only=True)
class WorkTree:
    """A work tree as it is now."""

    root: str
    """Its top folder."""
    commit: str | None
    """Id of the commit that is checked out; None before the first."""
    branch: str | None
    changed: list[str]
    """Files that differ from the commit, with those that are untracked and in the patch."""
    left_out: list[str]
    """Untracked files that are not in the patch: large, or named like files with keys."""
    patch: bytes = field(default=b"", repr=False)
    """For `git apply` on the commit; empty if nothing is uncommitted, or the patch would be too large."""

    def record(self) -> dict[str, Any]:
        """All but the patch itself, and whether there is one."""
        fields = asdict(self)
        fields["patch"] = "uncommitted.patch" if fields.pop("patch") else None
        return fields


def read_work_tree(folder: Path, runs: Path) -> WorkTree | None:
    """The work tree that `folder` lies in; None without one, without git, or where git refuses to look.

    Untracked files in `runs`, where run directories are, do not count.
    """
    root = _git(folder, "rev-parse", "--show-toplevel")
    if root is None:
        return None
    top = Path(os.fsdecode(root.strip()))
    commit = _text(_git(top, "rev-parse", "--verify", "--quiet", "HEAD"))
    branch = _text(_git(top, "symbolic-ref", "--quiet", "--short", "HEAD"))
    others = _names(_git(top, "ls-files", "--others", "--exclude-standard", "-z"))
    untracked = [name for name in others if not (top / name).is_relative_to(runs.resolve())]
    kept = _kept(top, untracked)
    left_out = [name for name in untracked if name not in kept]
    changed, patch = _difference(top, kept) if commit else (kept, b"")
    return WorkTree(root=str(top), commit=commit, branch=branch, changed=changed, left_out=left_out, patch=patch)


def _difference(top: Path, untracked: Sequence[str]) -> tuple[list[str], bytes]:
    """Files that differ from HEAD, and how, as a patch without the values of this shell's keys."""
    index = _text(_git(top, "rev-parse", "--git-path", "index"))
    with TemporaryDirectory(prefix="trainwright-") as folder:
        own = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
        if index and (top / index).is_file():
            shutil.copyfile(top / index, own["GIT_INDEX_FILE"])
        if untracked:
            _git(
                top, "add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul", more=own, told=untracked
            )
        changed = _names(_git(top, "diff", "--name-only", "-z", "HEAD", more=own))
        patch = _git(top, "diff", "--binary", "--no-color", "--no-ext-diff", "HEAD", more=own) if changed else b""
    patch = patch or b""
    for value in secret_values():
        patch = patch.replace(value.encode(), b"***")
    return changed, patch if len(patch) <= MAX_PATCH_BYTES else b""


def _kept(top: Path, untracked: Sequence[str]) -> list[str]:
    """Those that are small, also together, and not named like files with keys."""
    kept, total = [], 0
    for name in untracked:
        path = top / name
        if any(fnmatch(path.name.lower(), pattern) for pattern in _KEY_FILES) or not path.is_file():
            continue
        size = path.stat().st_size
        if size <= MAX_UNTRACKED_BYTES and total + size <= MAX_PATCH_BYTES // 4:
            kept.append(name)
            total += size
    return kept


def _git(folder: Path, *words: str, more: Mapping[str, str] | None = None, told: Sequence[str] = ()) -> bytes | None:
    """What git prints; None if it is missing, slow, or says no."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C", **(more or {})}
    command = ["git", "-c", "core.quotePath=off", "-c", "core.fsmonitor=false", *words]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            input="\0".join(told).encode(errors="surrogateescape"),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _text(printed: bytes | None) -> str | None:
    return os.fsdecode(printed.strip()) or None if printed is not None else None


def _names(printed: bytes | None) -> list[str]:
    return [os.fsdecode(name) for name in (printed or b"").split(b"\0") if name]
