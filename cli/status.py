"""`trainwright status RUN`: what became of a run."""

import argparse
from typing import TYPE_CHECKING

from .host import add_host_options
from .output import add_json_option, emit

if TYPE_CHECKING:
    from ..launchers.status import RunStatus

_RECENT_S = 60.0  # of a run that goes on, the GPU numbers of its last minute


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`status RUN`."""
    text = "say whether a run is queued, running, finished, failed or cancelled, how far it is, and why"
    parser = commands.add_parser("status", help=text, description=text)
    parser.add_argument("run_name", metavar="RUN", help="a run's folder or name")
    add_json_option(parser)
    add_host_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look and tell."""
    from dataclasses import asdict

    from ..config.rundir import find_run
    from ..launchers.status import read_status
    from ..tracking.gpu_usage import NOT_MEASURED, read_usage

    run_dir = find_run(arguments.run_name)
    now = read_status(run_dir)
    gpus = read_usage(run_dir, now.attempt, _RECENT_S if now.state == "running" else None)
    record = asdict(now) | {"gpus": gpus.record() if gpus else None}
    emit(arguments, record, status_text(now, gpus.text() if gpus else NOT_MEASURED))
    return 0


def status_text(now: "RunStatus", gpus: str) -> str:
    """A few lines about a run; what is not known is left out."""
    place = f"Slurm job {now.job_id}" if now.job_id else f"process {now.pid}" if now.pid else "nowhere yet"
    lines = [f"run      {now.run}", f"state    {now.state}, attempt {now.attempt}, {place}"]
    if now.why:
        lines.append(f"why      {now.why}")
    if now.step is not None:
        loss = "" if now.loss is None else f", loss {now.loss:.4f}"
        speed = "" if now.tokens_per_s is None else f", {now.tokens_per_s:,.0f} tokens/s"
        lines.append(f"step     {now.step}/{now.steps}{loss}{speed}")
        lines.append(f"GPU      {gpus}")
    if now.nodes:
        lines.append(f"nodes    {', '.join(now.nodes)}")
    if now.log:
        lines.append(f"log      {now.log}")
    return "\n".join(lines)
