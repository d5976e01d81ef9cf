"""`trainwright logs [-f] [--rank N] [--attempt N] RUN`: what a rank printed."""

import argparse
import sys
from typing import TYPE_CHECKING

from .host import add_host_options
from .output import add_json_option, emit

if TYPE_CHECKING:
    from pathlib import Path

    from ..config.rundir import RunDir


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`logs [-f] [--rank N] [--attempt N] RUN`."""
    text = "print a rank's log: the failing rank's, else rank 0's"
    parser = commands.add_parser("logs", help=text, description=text)
    parser.add_argument("run_name", metavar="RUN", help="a run's folder or name")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    parser.add_argument("--rank", type=int, metavar="N", help="this rank's log")
    parser.add_argument("--attempt", type=int, metavar="N", help="this attempt's log; the newest if not given")
    add_json_option(parser)
    add_host_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print or follow the log."""
    from ..config.rundir import find_run
    from ..launchers.follow import follow_log
    from ..launchers.logs import read_log
    from ..launchers.status import read_status

    found = find_run(arguments.run_name)
    attempt = _attempt(arguments, found)
    path = _path(arguments, found, attempt)
    if arguments.follow:
        newest = found.attempts()[-1]
        for piece in follow_log(path, lambda: attempt != newest or not _goes_on(read_status(found).state)):
            print(piece, end="", flush=True, file=sys.stderr if arguments.json else sys.stdout)
    text = read_log(path)
    if arguments.json:
        emit(arguments, {"attempt": attempt, "path": str(path), "lines": text.splitlines()}, "")
    elif not arguments.follow:
        print(text, end="", flush=True)
    if not text:
        print(f"nothing in {path} (the run is {read_status(found).state})", file=sys.stderr)
    return 0


def _attempt(arguments: argparse.Namespace, found: "RunDir") -> int:
    from ..config.errors import UserError

    attempts = found.attempts()
    if not attempts:
        raise UserError(str(found.path), "was never started", "submit it")
    if arguments.attempt is None:
        return attempts[-1]
    if arguments.attempt not in attempts:
        raise UserError("--attempt", str(arguments.attempt), f"this run has {', '.join(map(str, attempts))}")
    return int(arguments.attempt)


def _path(arguments: argparse.Namespace, found: "RunDir", attempt: int) -> "Path":
    """The rank's log; without --rank the one that status points to, so what matters is seen first."""
    from pathlib import Path

    from ..config.errors import UserError
    from ..config.loading import load_frozen
    from ..launchers.status import read_status

    if arguments.rank is not None:
        world_size = load_frozen(found.attempt_yaml(attempt)).cluster.world_size
        if not 0 <= arguments.rank < world_size:
            raise UserError("--rank", str(arguments.rank), f"give 0 to {world_size - 1}")
        return found.rank_log(attempt, arguments.rank)
    now = read_status(found)
    if attempt == now.attempt and now.log and now.state not in ("queued", "running"):
        return Path(now.log)
    return found.rank_log(attempt, 0)


def _goes_on(state: str) -> bool:
    return state in ("queued", "running")
