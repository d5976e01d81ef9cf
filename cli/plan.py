"""`trainwright plan RUN.yaml [key=value...]`: what would be submitted."""

import argparse
from typing import TYPE_CHECKING

from .output import add_json_option, emit

if TYPE_CHECKING:
    from ..launchers.plan import Plan


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`plan RUN.yaml [key=value...]`."""
    text = "show layout, ranks, sizes and the script of a run, without submitting it"
    parser = commands.add_parser("plan", help=text, description=text)
    parser.add_argument("run_file", metavar="RUN.yaml", help="run file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields to change, such as train.steps=100")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Work out the plan and show it."""
    from dataclasses import asdict
    from pathlib import Path

    from ..config.loading import load_run
    from ..launchers.plan import plan_run

    plan = plan_run(load_run(Path(arguments.run_file), arguments.overrides))
    emit(arguments, asdict(plan), plan_text(plan))
    return 0


def plan_text(plan: "Plan") -> str:
    layout = " x ".join(f"{axis} {size}" for axis, size in plan.layout.items())
    lines = [
        f"run         {plan.name}, in {plan.run_dir}",
        f"layout      {layout} = {len(plan.ranks)} ranks",
        f"parameters  {plan.parameters:,}",
        f"tokens      {plan.tokens_per_step:,} per step x {plan.steps:,} steps = {plan.tokens:,}",
        "",
        f"{'rank':>6} {'node':>5} {'tensor':>7} {'data':>5} {'pipeline':>9}  layers",
    ]
    for place in plan.ranks:
        numbers = f"{place.rank:>6} {place.node:>5} {place.tensor:>7} {place.data:>5} {place.pipeline:>9}"
        lines.append(f"{numbers}  {place.first_layer}-{place.last_layer}")
    lines += ["", plan.script.rstrip() if plan.script else "no script: the ranks are processes of this machine"]
    return "\n".join(lines)
