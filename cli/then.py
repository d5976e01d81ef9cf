"""`submit --then export|serve`: what follows a run once it has finished, on Slurm as jobs that wait for it."""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .serve import add_serving_options, serve_model, serving_options

if TYPE_CHECKING:
    from ..config.run import RunConfig
    from ..config.rundir import RunDir
    from ..launchers.submission import Submitted
    from ..serving.chain import Followers
    from ..serving.launch import ServeOptions


@dataclass(frozen=True)
class Then:
    """What follows: the export, and an endpoint if there are options for one."""

    serve: "ServeOptions | None"


def add_then_option(parser: argparse.ArgumentParser) -> None:
    """`--then`, which may be given twice."""
    text = "when the run has finished: export it, or serve it (which exports it), such as 'serve --name chat'"
    parser.add_argument("--then", action="append", default=[], metavar="export|serve", help=text)


def read_then(given: Sequence[str]) -> Then | None:
    """What was asked for; None if nothing was. Raises UserError naming a word that means nothing."""
    from ..config.errors import UserError

    options: list[ServeOptions] = []
    for text in given:
        words = _words(text)
        if words == ["export"]:
            continue
        if words[:1] != ["serve"]:
            remedy = "give export, serve, or serve with its options in quotes; `trainwright export` writes elsewhere"
            raise UserError("--then", repr(text), remedy)
        parser = argparse.ArgumentParser(prog="serve", add_help=False, exit_on_error=False)
        add_serving_options(parser)
        try:
            known, rest = parser.parse_known_args(words[1:])
        except argparse.ArgumentError as error:
            raise UserError("--then", f"{text!r}: {error}", "see `trainwright serve --help`") from None
        if rest:
            raise UserError("--then", f"serve does not know {rest[0]!r}", "see `trainwright serve --help`")
        options.append(serving_options(known))
    if len(options) > 1:
        raise UserError("--then", "serve is given twice", "a run has one endpoint")
    return Then(options[0] if options else None) if given else None


def submit_then(then: Then, submitted: "Submitted", run: "RunConfig") -> "Followers":
    """Submit what follows a run whose job is submitted. A UserError says that the run itself goes on."""
    from ..config.errors import UserError
    from ..serving.chain import submit_followers

    try:
        return submit_followers(submitted, run, then.serve)
    except UserError as error:
        goes_on = f"{error.remedy}; run {submitted.run_dir.name} itself is submitted as Slurm job {submitted.job_id}"
        raise UserError(error.where, error.problem, goes_on) from None


@dataclass(frozen=True)
class Done:
    """What followed a run on this machine, for --json and for people."""

    record: dict[str, object]
    text: str


def do_then_here(then: Then, run_dir: "RunDir") -> Done:
    """Do it now; progress on stderr."""
    from ..serving.models import find_model
    from .progress import BytesProgress

    if then.serve is not None:
        served = serve_model(str(run_dir.path), then.serve)
        return Done(served.record(), served.text())
    with BytesProgress("export") as progress:
        folder = find_model(str(run_dir.path), progress.update).folder
    return Done({"folder": str(folder)}, f"exported to {folder}")


def _words(text: str) -> list[str]:
    from ..config.errors import UserError

    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError("--then", f"{text!r}: {error}", "close the quote") from None
