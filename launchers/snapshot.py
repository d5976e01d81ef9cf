"""What a run is made of, copied into its directory, so that later edits cannot change a run that waits or goes on."""

import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ..config.rundir import RunDir

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


def take_snapshot(run: RunDir, model: Path, tokenizer: Path) -> str:
    """Copy code, model config and tokenizer into run.snapshot; the code's digest.

    `model` is a config.json or its folder; `tokenizer` a folder of files.
    """
    model = model / "config.json" if model.is_dir() else model
    run.model_config.parent.mkdir(parents=True)
    shutil.copyfile(model, run.model_config)
    _copy_folder(tokenizer, run.tokenizer, lambda _folder, _names: set())
    return copy_code(run)


def copy_code(run: RunDir) -> str:
    """Copy the package that runs this to run.code and write run.code_digest; the digest."""
    for package in PACKAGES:
        target = run.code / "trainwright" / package
        _copy_folder(_home(package), target, _not_code)
    files = digest_files(run.code)
    digest = hashlib.sha256("".join(f"{path} {sha}\n" for path, sha in files.items()).encode()).hexdigest()
    run.code_digest.write_text(json.dumps({"sha256": digest, "files": files}, indent=1) + "\n", encoding="utf-8")
    return digest


def digest_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder` by its relative path, sorted."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _copy_folder(source: Path, target: Path, ignore: Callable[[str, list[str]], set[str]]) -> None:
    """Copy a tree's files. Raises the first OSError as it is; shutil.copytree hides a full disk in a list of words."""
    for folder, folders, files in os.walk(source):
        left_out = ignore(folder, [*folders, *files])
        folders[:] = [name for name in folders if name not in left_out]
        into = target / Path(folder).relative_to(source)
        into.mkdir(parents=True, exist_ok=True)
        for name in files:
            if name not in left_out:
                shutil.copyfile(Path(folder, name), into / name)


def _home(package: str) -> Path:
    spec = importlib.util.find_spec(f"trainwright.{package}")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"the installation lacks trainwright.{package}")
    return Path(next(iter(spec.submodule_search_locations)))


def _not_code(folder: str, names: list[str]) -> set[str]:
    good = (".py", ".so", ".sbatch", ".typed")
    return {name for name in names if name == "__pycache__" or not (Path(folder, name).is_dir() or name.endswith(good))}
