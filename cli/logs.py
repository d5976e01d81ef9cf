"""`trainwright logs [-f] [--rank N] [--attempt N] RUN`: what ranks printed."""

import argparse
import sys
from typing import TYPE_CHECKING

from .host import add_host_options
from .output import add_json_option, emit

if TYPE_CHECKING:
    from pathlib import Path

    from ..config.rundir import RunDir
    from ..launchers.status import RunStatus


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`logs [-f] [--rank N] [--attempt N] RUN`."""
    text = "print a rank's log: the failing rank's, else rank 0's; with -f those of all ranks as they are written"
    parser = commands.add_parser("logs", help=text, description=text)
    parser.add_argument("run_name", metavar="RUN", help="a run's folder or name")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="all ranks, from attempt to attempt, until the run ends; then why"
    )
    parser.add_argument("--rank", type=int, metavar="N", help="this rank's log alone")
    parser.add_argument("--attempt", type=int, metavar="N", help="this attempt's logs alone; the newest if not given")
    add_json_option(parser)
    add_host_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print or follow."""
    from ..config.rundir import find_run

    found = find_run(arguments.run_name)
    attempt = _attempt(arguments, found)
    return _follow(arguments, found, attempt) if arguments.follow else _print(arguments, found, attempt)


def _print(arguments: argparse.Namespace, found: "RunDir", attempt: int) -> int:
    from ..launchers.logs import read_log
    from ..launchers.status import read_status

    path = _path(arguments, found, attempt)
    text = read_log(path)
    if arguments.json:
        emit(arguments, {"attempt": attempt, "path": str(path), "lines": text.splitlines()}, "")
    else:
        print(text, end="", flush=True)
    if not text:
        print(f"nothing in {path} (the run is {read_status(found).state})", file=sys.stderr)
    return 0


def _follow(arguments: argparse.Namespace, found: "RunDir", attempt: int) -> int:
    """Lines go to stdout, with --json to stderr; what became of each attempt to stderr."""
    from ..launchers.follow import is_over
    from ..launchers.history import ends_in_words
    from ..launchers.status import read_status
    from ..launchers.streams import Followed, follow_run
    from ..tracking.ledger import read_ledger

    _path(arguments, found, attempt)  # checks --rank
    what = Followed(rank=arguments.rank, attempt=arguments.attempt)
    lines = []
    for line in follow_run(found, what, lambda: is_over(read_status(found))):
        if arguments.json:
            lines.append(line.rstrip("\n"))
        print(line, end="", flush=True, file=sys.stderr if arguments.json else sys.stdout)
    ends = ends_in_words(read_ledger(found))
    now = read_status(found)
    for number, words in ends.items():
        if arguments.attempt in (None, number):
            print(f"attempt {number} ended: {words}", file=sys.stderr)
    print(_last_words(now), file=sys.stderr)
    if arguments.json:
        emit(arguments, {"attempt": now.attempt, "state": now.state, "why": now.why, "ends": ends, "lines": lines}, "")
    return 0


def _last_words(now: "RunStatus") -> str:
    step = "" if now.step is None else f" at step {now.step}/{now.steps}"
    return f"{now.run}: {now.state}{step}{f': {now.why}' if now.why else ''}"


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
