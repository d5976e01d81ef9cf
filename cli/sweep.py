"""`trainwright sweep RUN.yaml key=value,value... [--at-once N]`: one run for each combination of values."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .host import add_host_options
from .output import add_json_option, emit
from .progress import RunProgress

if TYPE_CHECKING:
    from ..config.grid import Point
    from ..config.run import RunConfig
    from ..launchers.submission import Submitted


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`sweep RUN.yaml key=value,value... [--at-once N]`."""
    text = "start a run for each combination of values: on Slurm as job arrays, on this machine one after another"
    parser = commands.add_parser("sweep", help=text, description=text)
    parser.add_argument("run_file", metavar="RUN.yaml", help="run file")
    fields = "fields and the values that they take, such as train.seed=1,2,3; a list is a value: [1,2],[3,4]"
    parser.add_argument("overrides", nargs="*", metavar="key=value,value", help=fields)
    limit = "on Slurm, let no more than N of the runs run at the same time"
    parser.add_argument("--at-once", type=int, metavar="N", help=limit)
    together = "on Slurm, run N of the runs side by side on one node, in one job, each with a share of it"
    parser.add_argument("--per-node", type=int, default=1, metavar="N", help=together)
    add_json_option(parser)
    add_host_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check every run, then submit all of them; on this machine 0 if all of them finished, else 1."""
    from ..config.errors import UserError
    from ..config.grid import grid
    from ..launchers.sweep import Sweep, check_sweep, submit_sweep

    at_once, per_node = arguments.at_once, arguments.per_node
    if at_once is not None and at_once < 1:
        raise UserError("--at-once", str(at_once), "give 1 or more runs")
    if per_node < 1:
        raise UserError("--per-node", str(per_node), "give 1 or more runs")
    if at_once and at_once < per_node:
        raise UserError(
            "--at-once", f"{at_once}, but --per-node starts {per_node} together", f"give {per_node} or more"
        )
    points = grid(arguments.overrides)
    source = Path(arguments.run_file)
    name, runs = load_points(source, points)
    prepared = check_sweep(runs, per_node)
    if runs[0].cluster.scheduler == "local":
        if at_once not in (None, 1):
            remedy = "leave it out, or give a profile with Slurm"
            raise UserError("--at-once", f"{at_once}, but on this machine runs go one after another", remedy)
        return _one_after_another(arguments, runs, points)
    submitted = submit_sweep(Sweep(name=name, source=source, at_once=at_once or 0, per_node=per_node), prepared)
    records = [_record(one, point) for one, point in zip(submitted, points, strict=True)]
    emit(arguments, {"sweep": name, "runs": records}, _text(records))
    return 0


def load_points(source: Path, points: "Sequence[Point]") -> "tuple[str, list[RunConfig]]":
    """The sweep's name, and the run file with each point's values, each with a name of its own."""
    from ..config.grid import name_points
    from ..config.loading import load_run

    names = [load_run(source, point.overrides).name for point in points]
    pairs = zip(points, name_points(names, points), strict=True)
    return names[0], [load_run(source, [*point.overrides, f'name="{name}"']) for point, name in pairs]


def _one_after_another(arguments: argparse.Namespace, runs: "Sequence[RunConfig]", points: "Sequence[Point]") -> int:
    from ..launchers.follow import wait_for_end
    from ..launchers.submission import submit_run

    records: list[dict[str, Any]] = []
    for number, (config, point) in enumerate(zip(runs, points, strict=True), start=1):
        submitted = submit_run(config, source=Path(arguments.run_file))
        name = submitted.run_dir.name
        print(f"{number} of {len(runs)}: {name}, process {submitted.pid}", file=sys.stderr, flush=True)
        try:
            with RunProgress() as progress:
                last = wait_for_end(submitted.run_dir, progress.show)
        except KeyboardInterrupt:
            print(f"{name} goes on; {len(runs) - number} runs were not started", file=sys.stderr)
            raise
        records.append({**_record(submitted, point), "state": last.state, "loss": last.loss, "why": last.why})
    emit(arguments, {"sweep": runs[0].name, "runs": records}, _text(records))
    return 0 if all(record["state"] == "finished" for record in records) else 1


def _record(submitted: "Submitted", point: "Point") -> dict[str, Any]:
    return {
        "run": str(submitted.run_dir.path),
        "attempt": submitted.attempt,
        "job_id": submitted.job_id,
        "pid": submitted.pid,
        "values": point.values,
    }


def _text(records: Sequence[dict[str, Any]]) -> str:
    """A line for each run, and how to follow them."""
    lines = []
    for record in records:
        values = " ".join(f"{key}={value}" for key, value in record["values"].items())
        place = record.get("state") or f"Slurm job {record['job_id']}"
        lines.append(f"run {Path(record['run']).name}: {place}, {values}")
    together = os.path.commonprefix([record["run"] for record in records])  # noqa: RUF071  (the shell's, with a *)
    first = records[0]["run"]
    return "\n".join([*lines, f"  trainwright status {together}*", f"  trainwright logs -f {first}"])
