"""What a run is made of, kept so that later edits cannot change a run that waits or goes on.

The code lies once in a folder named by its digest, which all runs with the same code share; model config, tokenizer
and the state of the git work tree lie in the run directory. One digest covers all of it.
"""

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config.errors import FoundBad
from ..config.rundir import RunDir, shared_code
from ..tracking.ledger import read_ledger
from .frozen import digest_of, entry, listing, problem_of
from .work_tree import WorkTree

PACKAGES = (
    "cli",
    "config",
    "launchers",
    "parallelism",
    "sbatch_templates",
    "serving",
    "storage",
    "tracking",
)
_CODE = (".py", ".so", ".sbatch", ".typed")
_REMEDY = "restore it, or submit the run file again"
Files = dict[str, tuple[bytes, bool]]
"""Name -> contents, and whether it is executable."""


def take_snapshot(run: RunDir, model: Path, tokenizer: Path, tree: WorkTree | None = None) -> str:
    """Freeze code, model config, tokenizer and the state of a work tree into run.snapshot; its digest.

    `model` is a config.json or its folder; `tokenizer` a folder of files.
    """
    own: Files = {f"tokenizer/{name}": file for name, file in _read(tokenizer).items()}
    own["model/config.json"] = ((model / "config.json" if model.is_dir() else model).read_bytes(), False)
    if tree is not None:
        own["git.json"] = ((json.dumps(tree.record(), indent=1) + "\n").encode(), False)
        if tree.patch:
            own["uncommitted.patch"] = (tree.patch, False)
    code = read_code()
    _write(run.snapshot, own)
    share_code(run, code)
    files = {**_entries(own), **{f"code/{name}": what for name, what in _entries(code).items()}}
    digest = digest_of(files)
    run.code_digest.write_text(json.dumps({"sha256": digest, "files": files}, indent=1) + "\n", encoding="utf-8")
    run.code_digest.chmod(0o444)
    return digest


def read_code() -> Files:
    """The package that runs this, as it is now."""
    return {
        f"trainwright/{package}/{name}": file
        for package in PACKAGES
        for name, file in _read(_home(package)).items()
        if name.endswith(_CODE)
    }


def share_code(run: RunDir, code: Files) -> None:
    """Lead run.code to the folder of all runs with this code, and make that if there is none or it is damaged."""
    files = _entries(code)
    digest, store = digest_of(files), shared_code(run.path.parent)
    store.mkdir(mode=0o700, exist_ok=True)
    place = store / digest
    # The link comes first: who removes an unused folder looks at the links after it is out of the way.
    run.code.symlink_to(Path("..", "..", store.name, digest))
    if place.is_dir() and problem_of(place, digest) is None:
        return
    beside = store / f".{digest}.partial-{secrets.token_hex(4)}"
    try:
        _write(beside, code)
        _put(beside, place, digest)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def forget_run(run: RunDir, had_runs: bool) -> None:
    """Remove what a failed submit has made, with the folder of runs if it was not there before."""
    _forget_code(run)
    shutil.rmtree(run.path, ignore_errors=True)
    for folder in (shared_code(run.path.parent), *([] if had_runs else [run.path.parent])):
        with contextlib.suppress(OSError):  # it may not be there, or others may use it by now
            folder.rmdir()


def _forget_code(run: RunDir) -> None:
    """Take run.code away, and what it led to if no other run has the same code."""
    if not run.code.is_symlink():
        return
    place = run.code.parent / os.readlink(run.code)
    run.code.unlink()
    aside = place.with_name(f".{place.name}.unused-{secrets.token_hex(4)}")
    try:
        place.rename(aside)
        links = [other / "snapshot" / "code" for other in run.path.parent.iterdir()]
        if place.name in [link.readlink().name for link in links if link.is_symlink()]:
            aside.rename(place)
    except OSError:  # somebody else was faster, in removing it or in making it again
        pass
    shutil.rmtree(aside, ignore_errors=True)


def describe(run: RunDir) -> dict[str, Any]:
    """What a run is made of, for people and --json: digest, commit, and whether there are uncommitted changes."""
    tree = json.loads(run.git_record.read_text(encoding="utf-8")) if run.git_record.is_file() else {}
    return {
        "sha256": snapshot_digest(run),
        "commit": tree.get("commit"),
        "uncommitted": bool(tree.get("changed") or tree.get("left_out")) if tree else None,
        "patch": str(run.snapshot / tree["patch"]) if tree.get("patch") else None,
    }


def snapshot_digest(run: RunDir) -> str | None:
    """Digest of a run's snapshot, as it was when the run was submitted; None before that."""
    for event in read_ledger(run):
        if event.event == "submit" and event.fields.get("snapshot"):
            return str(event.fields["snapshot"])
    if run.code_digest.is_file():
        return str(json.loads(run.code_digest.read_text(encoding="utf-8"))["sha256"])
    return None


def require_intact(run: RunDir) -> str:
    """The snapshot's digest. Raises FoundBad naming a file that is not as it was when the run was submitted."""
    digest = snapshot_digest(run)
    if digest is None:
        raise FoundBad(str(run.code_digest), "is missing", _REMEDY)
    problem = problem_of(run.snapshot, digest)
    if problem is not None:
        raise FoundBad(*problem, _REMEDY)
    return digest


def _put(beside: Path, place: Path, digest: str) -> None:
    """Rename a whole folder to its place. Of two that come at once one stays; a damaged one there gives way."""
    for _ in range(2):
        try:
            beside.rename(place)
            return
        except OSError:
            if not place.is_dir():
                raise
            if problem_of(place, digest) is None:
                return
            aside = place.with_name(f".{digest}.damaged-{secrets.token_hex(4)}")
            place.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
    raise FoundBad(str(place), "is damaged and was damaged again", "see who else writes there")


def _read(folder: Path) -> Files:
    files: Files = {}
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            path = Path(place, name)
            executable = bool(path.stat().st_mode & 0o100)
            files[path.relative_to(folder).as_posix()] = (path.read_bytes(), executable)
    return files


def _entries(files: Files) -> Mapping[str, str]:
    return {name: entry(data, executable) for name, (data, executable) in files.items()}


def _write(folder: Path, files: Files) -> None:
    """Write files that nobody may change, and see that they are there as they are meant to be."""
    folder.mkdir(mode=0o700)
    for name, (data, executable) in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.write_bytes(data)
        except OSError as error:  # of a full disk, which names no file
            error.filename = error.filename or str(path)
            raise
        path.chmod(0o555 if executable else 0o444)
    if listing(folder) != _entries(files):
        raise FoundBad(str(folder), "does not keep files or their modes as written", "give `runs` another filesystem")


def _home(package: str) -> Path:
    spec = importlib.util.find_spec(f"trainwright.{package}")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"the installation lacks trainwright.{package}")
    return Path(next(iter(spec.submodule_search_locations)))
