"""`trainwright cancel [--save] RUN`: end a run."""

import argparse

from .host import add_host_options
from .output import add_json_option, emit


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`cancel [--save] RUN`."""
    text = "end a run that is queued or running"
    parser = commands.add_parser("cancel", help=text, description=text)
    parser.add_argument("run_name", metavar="RUN", help="a run's folder or name")
    parser.add_argument("--save", action="store_true", help="let it save a checkpoint first, and wait for that")
    add_json_option(parser)
    add_host_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """End it and say what it is now; a run that was over already stays what it was."""
    from dataclasses import asdict

    from ..config.rundir import find_run
    from ..launchers.cancel import cancel_run

    now = cancel_run(find_run(arguments.run_name), save=arguments.save)
    emit(arguments, asdict(now), f"{now.run}: {now.state}")
    return 0
