"""`trainwright watch RUN...`: start again what Slurm holds back, until the runs are over."""

import argparse
import sys
import time
from typing import TYPE_CHECKING

from .host import add_host_options
from .output import add_json_option, emit

if TYPE_CHECKING:
    from ..config.cluster import ClusterConfig
    from ..config.rundir import RunDir
    from ..launchers.watch import Step

_OVER = ("finished", "failed", "cancelled")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`watch [--every S] RUN...`."""
    text = (
        "start requeued jobs at once, and release those that Slurm holds after a node failed, until the runs are over"
    )
    parser = commands.add_parser("watch", help=text, description=text)
    parser.add_argument("run_names", metavar="RUN", nargs="+", help="a run's folder or name")
    parser.add_argument("--every", type=float, default=10.0, metavar="S", help="seconds between two looks (default 10)")
    add_json_option(parser)
    add_host_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look now and then; 0 when all runs are over."""
    from ..config.errors import UserError
    from ..config.rundir import find_run
    from ..launchers.slurm import SlurmUnreachable

    if not 1 <= arguments.every <= 3600:
        raise UserError("--every", str(arguments.every), "give seconds from 1 to 3600")
    runs = [find_run(name) for name in arguments.run_names]
    done: list[dict[str, str]] = []
    while True:
        try:
            jobs, states = _jobs(runs)
            for step in [step for cluster_jobs in jobs for step in cluster_jobs]:
                print(f"{time.strftime('%H:%M:%S')} job {step.job_id}: {step.done}", file=sys.stderr, flush=True)
                done.append({"job_id": step.job_id, "done": step.done})
            if all(state in _OVER for state in states.values()):
                break
        except SlurmUnreachable as error:
            print(f"{time.strftime('%H:%M:%S')} {error}", file=sys.stderr, flush=True)
        time.sleep(arguments.every)
    emit(arguments, {"done": done, "states": states}, "\n".join(f"{name}: {state}" for name, state in states.items()))
    return 0


def _jobs(runs: "list[RunDir]") -> "tuple[list[list[Step]], dict[str, str]]":
    """What was done in each cluster, one squeue for all its jobs, and the state of each run."""
    from ..config.loading import load_frozen
    from ..launchers.status import read_statuses
    from ..launchers.watch import look, waits_on_purpose

    clusters: dict[str | None, tuple[ClusterConfig, dict[str, RunDir]]] = {}
    states: dict[str, str] = {}
    for found, now in zip(runs, read_statuses(runs), strict=True):
        states[str(found.path)] = now.state
        if now.job_id and now.state not in _OVER and not waits_on_purpose(found):
            cluster = load_frozen(found.run_yaml).cluster
            clusters.setdefault(cluster.slurm_conf, (cluster, {}))[1][now.job_id] = found
    return [look(cluster, jobs) for cluster, jobs in clusters.values()], states
