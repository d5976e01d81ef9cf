"""Whether a snapshot is what was submitted. Standard library alone: in a job it runs before any other of our code.

    python -I -S RUN_DIR/snapshot/code/trainwright/launchers/frozen.py RUN_DIR FIRST DIGEST

FIRST is the attempt that was submitted, DIGEST its snapshot's. Ends with 0; or with 3 and one line that names a file
which is not as it was, on stderr and in the ledger. That is written from here and not by the ledger's module, which is
among the files that cannot be trusted then.
"""

import hashlib
import json
import os
import stat
import sys
import time
from collections.abc import Mapping
from pathlib import Path

FOUND_BAD = 3
DIGEST_FILE = "digest.json"
"""Beside the files: {"sha256": digest, "files": what `listing` finds}."""


def entry(data: bytes, executable: bool) -> str:
    """What a file counts as: its mode in git's words and its SHA-256."""
    return f"{'755' if executable else '644'} {hashlib.sha256(data).hexdigest()}"


def listing(folder: Path) -> dict[str, str]:
    """Name -> entry of every file below a folder, through links to folders; without DIGEST_FILE and Python's caches."""
    found = {}
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            path = Path(place, name)
            found[path.relative_to(folder).as_posix()] = _entry_of(path)
    found.pop(DIGEST_FILE, None)
    return found


def _entry_of(path: Path) -> str:
    try:
        mode = path.lstat().st_mode
        return entry(path.read_bytes(), bool(mode & 0o100)) if stat.S_ISREG(mode) else "no file"
    except OSError as error:
        return f"unreadable: {error.strerror}"


def digest_of(files: Mapping[str, str]) -> str:
    """SHA-256 over the sorted names with their entries, in hexadecimal."""
    return hashlib.sha256("".join(f"{files[name]} {name}\n" for name in sorted(files)).encode()).hexdigest()


def problem_of(folder: Path, digest: str) -> tuple[str, str] | None:
    """Which file below `folder` is not as `digest` has it, and how it differs, in words; None if all are."""
    found = listing(folder)
    if digest_of(found) == digest:
        return None
    try:
        expected = {
            str(name): str(what) for name, what in json.loads((folder / DIGEST_FILE).read_text())["files"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        expected = {}
    if digest_of(expected) != digest:
        return str(folder / DIGEST_FILE), "is not that of what was submitted"
    # A link that leads nowhere is one file more and a hundred fewer: those say it better.
    names = sorted(expected, key=lambda name: (name not in found, name)) + sorted(found.keys() - expected.keys())
    bad = [name for name in names if found.get(name) != expected.get(name)]
    more = f" (and {len(bad) - 1} more files differ)" if len(bad) > 1 else ""
    return str(folder / bad[0]), f"{_how(found.get(bad[0]), expected.get(bad[0]))}{more}"


def _how(found: str | None, expected: str | None) -> str:
    if found is None:
        return "is missing, and was there when the run was submitted"
    if expected is None:
        return "was added after the run was submitted"
    return f"is {found}" if found.startswith("unreadable") else "was changed after the run was submitted"


def main(run_dir: str, first: str, digest: str) -> int:
    """Check the snapshot of a run whose job starts; the exit code."""
    run = Path(run_dir)
    problem = problem_of(run / "snapshot", digest)
    if problem is None:
        return 0
    line = f"{' '.join(problem)}; restore it, or submit the run file again"
    print(f"trainwright: {line}", file=sys.stderr)
    _record(run / "ledger", int(first), line)
    (run / "jobs" / "keys.json").unlink(missing_ok=True)
    return FOUND_BAD


def _record(ledger: Path, attempt: int, line: str) -> None:
    """Write the end of this attempt: the one that was submitted, or a new one where Slurm has started the job again."""
    if int(os.environ.get("SLURM_RESTART_COUNT") or 0):
        attempt = max(int(path.name) for path in ledger.iterdir() if path.name.isdigit()) + 1
    folder = ledger / f"{attempt:04d}"
    folder.mkdir(mode=0o700, exist_ok=True)
    ended = {"step_code": FOUND_BAD, "signal": "", "failure": None, "slurm": None, "why": "", "requeued": False}
    events: list[dict[str, object]] = [
        {"event": "verdict", "rank": 0, "code": 93, "message": line},
        {"event": "cause", "cause": "mistake"},
        {"event": "exit", "code": FOUND_BAD, "message": line} | ended,
    ]
    with (folder / "supervisor.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({"time": time.time(), **event}) + "\n" for event in events)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
