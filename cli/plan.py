"""`trainwright plan RUN.yaml [key=value...]`: what would be submitted."""

import argparse
import math
import sys
from typing import TYPE_CHECKING

from .host import add_host_options
from .job_plan import job_lines
from .output import add_json_option, emit

if TYPE_CHECKING:
    from ..launchers.data_plan import Share
    from ..launchers.plan import Plan


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`plan RUN.yaml [key=value...]`."""
    text = "show layout, ranks, sizes and the script of a run, without submitting it"
    parser = commands.add_parser("plan", help=text, description=text)
    parser.add_argument("run_file", metavar="RUN.yaml", help="run file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields to change, such as train.steps=100")
    parser.add_argument("--step-time-s", type=_seconds, metavar="S", help="seconds per step; else as measured")
    add_json_option(parser)
    add_host_options(parser)
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds; give one above 0, such as 2.5")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Work out the plan and show it."""
    from dataclasses import asdict
    from pathlib import Path

    from ..config.loading import load_run
    from ..launchers.plan import plan_run

    plan = plan_run(load_run(Path(arguments.run_file), arguments.overrides), arguments.step_time_s)
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    emit(arguments, asdict(plan), plan_text(plan))
    return 0


def plan_text(plan: "Plan") -> str:
    axes = [f"{axis} {plan.layout[axis]}" for axis in ("tensor", "context", "pipeline", "data") if axis in plan.layout]
    long = "context" in plan.layout
    sparse = plan.ranks[0].first_expert is not None
    inside = f"; experts: {plan.layout.get('expert', 1)} shares, tensor {plan.layout.get('expert_tensor', 1)}"
    active = f", of which a token passes {plan.active_parameters:,}" if sparse else ""
    size = "unknown" if plan.staged_bytes is None else f"{plan.staged_bytes:,}"
    staged = [f"staging     {size} bytes to {plan.stage} of each node"] if plan.stage else []
    commit = [f"commit      {plan.commit[:12]}{_uncommitted(plan)}"] if plan.commit else []
    lines = [
        f"run         {plan.name}, in {plan.run_dir}",
        f"layout      {' x '.join(axes)} = {len(plan.ranks)} ranks{inside if sparse else ''}",
        *([f"proof       {plan.proof}"] if plan.proof else []),
        f"parameters  {plan.parameters:,}{active}",
        "memory      unknown: try a few steps (train.steps=5) before a long run",
        f"tokens      {plan.tokens_per_step:,} per step x {plan.steps:,} steps = {plan.tokens:,}",
        *staged,
        *commit,
        "",
        *_data_lines(plan.data),
        "",
        f"{'rank':>6} {'node':>5} {'tensor':>7}{' context' if long else ''} {'data':>5} {'pipeline':>9}  layers"
        f"{'  experts' if sparse else ''}",
    ]
    for place in plan.ranks:
        context = f" {place.context:>7}" if long else ""
        numbers = f"{place.rank:>6} {place.node:>5} {place.tensor:>7}{context} {place.data:>5} {place.pipeline:>9}"
        layers = ",".join(f"{first}-{last}" for first, last in place.layers)
        experts = f"  {place.first_expert}-{place.last_expert}" if sparse else ""
        lines.append(f"{numbers}  {layers:<6}{experts}".rstrip())
    if plan.job:
        lines += ["", *job_lines(plan.job)]
    lines += ["", plan.script.rstrip() if plan.script else "no script: the ranks are processes of this machine"]
    return "\n".join(lines)


def _uncommitted(plan: "Plan") -> str:
    kept, left = len(plan.uncommitted), len(plan.left_out)
    words = [f"{kept} files not committed, to be kept as a patch"] if kept else []
    words += [f"{left} untracked ones left out"] if left else []
    return "".join(f", {word}" for word in words)


def _data_lines(shares: "list[Share]") -> list[str]:
    """What is read, a line for each stage and store that has a share, and one for each store in all stages."""
    lines = [f"{'stage':>6} {'share':>7} {'samples':>13} {'tokens':>19} {'epochs':>8}  store"]
    rows = [(str(share.stage), f"{share.share:.2%}", [share]) for share in shares if share.samples]
    if len({stage for stage, _, _ in rows}) > 1:
        total = max(1, sum(share.samples for share in shares))
        for store in dict.fromkeys(share.store for share in shares):
            mine = [share for share in shares if share.store == store]
            rows.append(("all", f"{sum(share.samples for share in mine) / total:.2%}", mine))
    for stage, part, mine in rows:
        known = [share.epochs for share in mine if share.epochs is not None]
        epochs = f"{sum(known):.2f}" if known else "unknown"
        samples, tokens = sum(share.samples for share in mine), sum(share.tokens for share in mine)
        lines.append(f"{stage:>6} {part:>7} {samples:>13,} {tokens:>19,} {epochs:>8}  {mine[0].source}")
    return lines
