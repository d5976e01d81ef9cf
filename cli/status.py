"""`trainwright status [RUN...]`: what became of a run, or a line for each of many."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .host import add_host_options
from .output import add_json_option, emit

if TYPE_CHECKING:
    from ..config.rundir import RunDir
    from ..launchers.status import RunStatus

_RECENT_S = 60.0  # of a run that goes on, the GPU numbers of its last minute


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`status [RUN...]`."""
    text = "say whether a run is queued, running, finished, failed or cancelled, how far it is, and why"
    parser = commands.add_parser("status", help=text, description=text)
    several = "a run's folder or name; a table for several, or for all in ./runs and $TRAINWRIGHT_RUNS if none is given"
    parser.add_argument("run_names", metavar="RUN", nargs="*", help=several)
    add_json_option(parser)
    add_host_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look and tell."""
    from dataclasses import asdict

    from ..config.rundir import all_runs, find_run
    from ..launchers.status import read_statuses

    if len(arguments.run_names) == 1:
        return _one(arguments, find_run(arguments.run_names[0]))
    runs = [find_run(name) for name in arguments.run_names] or _readable(all_runs())
    statuses = read_statuses(runs)
    emit(arguments, {"runs": [asdict(now) for now in statuses]}, table(statuses))
    return 0


def _one(arguments: argparse.Namespace, run_dir: "RunDir") -> int:
    from dataclasses import asdict

    from ..config.loading import load_frozen
    from ..launchers.fair_share import priority_text, read_priority
    from ..launchers.status import read_status
    from ..storage.checkpoints.checkpoint import best_step, held_out_losses
    from ..tracking.gpu_usage import NOT_MEASURED, read_usage

    now = read_status(run_dir)
    gpus = read_usage(run_dir, now.attempt, _RECENT_S if now.state == "running" else None)
    record = asdict(now) | {"gpus": gpus.record() if gpus else None}
    text = status_text(now, gpus.text() if gpus else NOT_MEASURED)
    losses = held_out_losses(run_dir)
    best = best_step(losses)
    if best is not None:
        record["best"] = {"step": best, "held_out_loss": losses[best]}
        text += f"\nbest     step {best}, held-out loss {losses[best]:.4f}: {run_dir.name}@best"
    if now.state == "queued" and now.job_id:
        priority = read_priority(load_frozen(run_dir.run_yaml).cluster, now.job_id)
        record["priority"] = asdict(priority) if priority else None
        text += f"\npriority {priority_text(priority)}" if priority else ""
    emit(arguments, record, text)
    return 0


def _readable(runs: "list[RunDir]") -> "list[RunDir]":
    """Those whose run file can be read; the others are named on stderr. UserError if there is no run at all."""
    from ..config.errors import UserError
    from ..config.loading import load_frozen

    if not runs:
        raise UserError("RUN", "no runs in ./runs or $TRAINWRIGHT_RUNS", "give a run's folder or name")
    good = []
    for found in runs:
        try:
            load_frozen(found.run_yaml)
            good.append(found)
        except UserError as error:
            print(f"warning: {error}", file=sys.stderr)
    return good


def table(statuses: "Sequence[RunStatus]") -> str:
    """A line for each run, in the order given."""
    rows = [("run", "state", "attempt", "job", "step", "loss", "why")]
    for now in statuses:
        place = now.job_id or (f"pid {now.pid}" if now.pid else "")
        step = "" if now.step is None else f"{now.step}/{now.steps}"
        loss = "" if now.loss is None else f"{now.loss:.4f}"
        rows.append((now.run.rpartition("/")[2], now.state, str(now.attempt), place, step, loss, now.why))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


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
    lines += [f"guards   {words}" for words in now.guards]
    if now.then:
        lines.append(then_text(now.then))
    if now.log:
        lines.append(f"log      {now.log}")
    return "\n".join(lines)


def then_text(then: Mapping[str, str | None]) -> str:
    """The jobs that follow a run: `export_job`, and `serve_job` of `endpoint` if there will be one."""
    text = f"then     export, Slurm job {then['export_job']}"
    if then["endpoint"]:
        text += f"; endpoint {then['endpoint']}, Slurm job {then['serve_job']} (`trainwright serve --list`)"
    return text
