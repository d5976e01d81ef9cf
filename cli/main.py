"""The command line: parse, run one command, turn every failure into one line and an exit code.

Exit codes: 0 done; 1 our fault; 2 the user's mistake (a full or read-only disk too); 3 checked and found bad.
Command modules are imported only to build their parsers, so they import nothing heavy at the top.
"""

import argparse
import difflib
import errno
import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

COMMANDS = (
    "quickstart",
    "data",
    "plan",
    "verify-layout",
    "submit",
    "sweep",
    "status",
    "logs",
    "cancel",
    "watch",
    "sync",
    "export",
    "convert",
    "evaluate",
    "serve",
    "cluster",
    "doctor",
)

_DISK_REMEDIES = {
    errno.ENOSPC: "free some space or give another folder",
    errno.EDQUOT: "free some of the quota or give another folder",
    errno.EROFS: "give a folder that can be written",
    errno.EACCES: "give a path that you may use, or change its permissions",
    errno.EPERM: "give a path that you may use, or change its permissions",
    errno.ENOTDIR: "give a path whose parents are folders",
    errno.ENAMETOOLONG: "give a shorter path",
}


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors that name the nearest valid word."""

    def error(self, message: str) -> NoReturn:
        choice = re.search(r"argument (\S+): invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice:
            words = re.findall(r"[\w-]+", choice.group(3))
            near = difflib.get_close_matches(choice.group(2), words, n=1)
            what = f"{choice.group(1)}: {choice.group(2)!r}" if choice.group(1)[0] == "-" else f"{choice.group(2)!r}"
            message = f"{what} is not known here; " + (
                f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(words)}"
            )
        else:
            message = f"{message}; see `{self.prog} --help`"
        fail(f"{self.prog}: {message}", 2)


def fail(message: str, code: int) -> NoReturn:
    """One line on stderr and out."""
    print("trainwright: " + " ".join(message.split()), file=sys.stderr)
    raise SystemExit(code)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; each command adds its own parser."""
    parser = _Parser(prog="trainwright", description="Train large language models on Slurm clusters and serve them.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"trainwright.cli.{name.replace('-', '_')}").add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parse(argv)
    try:
        if getattr(arguments, "host", None):
            from .host import run_there

            return run_there(arguments, sys.argv[1:] if argv is None else argv)
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        fail("stopped by Ctrl-C", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        _report(error)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse; overrides may stand before or after options (argparse itself takes them in one run only)."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and hasattr(arguments, "overrides") and not any(word.startswith("-") for word in rest):
        arguments.overrides = [*arguments.overrides, *rest]
    elif rest:
        parser.error(f"{' '.join(rest)!r} is not understood")
    return arguments


def _report(error: Exception) -> NoReturn:
    """UserError and FoundBad know their exit code; a disk that refuses is the user's to mend; the rest is ours."""
    code = getattr(error, "exit_code", None)
    if code is not None:
        fail(str(error), code)
    if isinstance(error, OSError) and error.errno in _DISK_REMEDIES:
        where = error.filename or "output"
        fail(f"{where}: {error.strerror}; {_DISK_REMEDIES[error.errno]}", 2)
    traceback.print_exc()
    fail(f"internal error: {type(error).__name__}: {error}; this is a fault of trainwright, please report it", 1)


if __name__ == "__main__":
    sys.exit(main())
