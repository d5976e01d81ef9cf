"""`trainwright quickstart`: the whole path on this machine, from text to an answer from an endpoint."""

import argparse
from typing import Any

from .output import add_json_option, emit


def add_parser(commands: Any) -> None:
    """Declare the command's options."""
    text = "text in, endpoint out: build a store, train, export, serve and ask, on this machine"
    parser = commands.add_parser("quickstart", help=text, description=text)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields to change, such as train.steps=100")
    parser.add_argument("--moe", action="store_true", help="a mixture of experts, its experts shared by two ranks")
    parser.add_argument("--text", metavar="FOLDER", help="text to train on (the Python standard library's source)")
    parser.add_argument("--folder", default="quickstart", metavar="FOLDER", help="where all goes (./quickstart)")
    parser.add_argument(
        "--cluster", choices=("local", "dev"), default="local", help="dev: train and serve as Slurm jobs"
    )
    parser.add_argument("--keep-serving", action="store_true", help="leave the endpoint running at the end")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Go the whole path; progress on stderr, the closing table on stdout."""
    from pathlib import Path

    from .quickstart_path import Quickstart

    path = Quickstart(
        folder=Path(arguments.folder).absolute(),
        text=Path(arguments.text).absolute() if arguments.text else None,
        moe=arguments.moe,
        cluster=arguments.cluster,
        overrides=tuple(arguments.overrides),
        keep_serving=arguments.keep_serving,
    )
    closing = path.go()
    emit(arguments, closing.record(), closing.table())
    return 0
