"""`--host`: the same command on another machine, by the same code, with the run file and what lies beside it."""

import argparse
import base64
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..config.run import RunConfig

_MODEL_FILES = ("config.json", "generation_config.json", "*tokenizer*", "vocab*", "merges.txt", "*.jinja")
_LARGEST_BYTES = 64 << 20


def add_host_options(parser: argparse.ArgumentParser) -> None:
    """`--host` and `--host-python`, of every command that can be given to a login node."""
    parser.add_argument("--host", metavar="USER@HOST[:FOLDER]", help="do it there, by ssh, with this code and run file")
    python = os.environ.get("TRAINWRIGHT_HOST_PYTHON") or "python3"
    text = "interpreter there, with Trainwright's requirements; $TRAINWRIGHT_HOST_PYTHON or python3 if not given"
    parser.add_argument("--host-python", metavar="PATH", default=python, help=text)


def run_there(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Run this command line on its host; the exit code it had there."""
    from ..launchers.ssh import Host

    host = Host.parse(arguments.host, arguments.host_python)
    words = _without_host(argv)
    files: dict[str, Path] = {}
    home = Path.cwd()
    run_file = getattr(arguments, "run_file", None)
    if run_file is not None and Path(run_file).is_file():
        words[words.index(run_file, 1)] = Path(run_file).name
        home = Path(run_file).absolute().parent
        for overrides in _overrides(arguments):
            files |= _files_of(Path(run_file), overrides)
    folder = host.folder or f"trainwright/{home.name}"
    content = {name: base64.b64encode(path.read_bytes()).decode() for name, path in files.items()}
    request: dict[str, Any] = {"argv": words, "folder": folder, "files": content}
    ended = host.run(request)
    if ended == 0 and arguments.command in ("submit", "sweep"):
        print(f"in {folder} on {host.destination}: give status, logs and cancel the same --host", file=sys.stderr)
    return ended


def _overrides(arguments: argparse.Namespace) -> list[Sequence[str]]:
    """Those of the run, or of each run of a sweep."""
    if arguments.command != "sweep":
        return [arguments.overrides]
    from ..config.grid import grid

    return [point.overrides for point in grid(arguments.overrides)]


def _without_host(argv: Sequence[str]) -> list[str]:
    parser = argparse.ArgumentParser(add_help=False)
    add_host_options(parser)
    return parser.parse_known_args(list(argv))[1]


def _files_of(run_file: Path, overrides: Sequence[str]) -> dict[str, Path]:
    """What the run needs of this machine, by the path it has there: run file, profile, model config and tokenizer.

    Weights and token stores are too large for this: what the run file calls by a relative path has to lie in the
    folder there.
    """
    from ..config.loading import load_run

    run = load_run(run_file, overrides)
    home = run_file.absolute().parent
    files = {run_file.name: run_file, **_profile(run, home)}
    model = Path(run.model)
    folder = model if model.is_dir() else model.parent
    if model.exists() and folder.is_relative_to(home):
        for pattern in _MODEL_FILES:
            for path in sorted(folder.glob(pattern)):
                if path.is_file() and path.stat().st_size <= _LARGEST_BYTES:
                    files[path.relative_to(home).as_posix()] = path
    return files


def _profile(run: "RunConfig", home: Path) -> dict[str, Path]:
    """The file of the run's profile, if it has one; on the host it lies beside the run file."""
    from ..config.profiles import profile_folders

    name = f"{run.cluster.profile}.yaml"
    for folder in profile_folders(home):
        if (folder / name).is_file():
            return {name: folder / name}
    return {}
