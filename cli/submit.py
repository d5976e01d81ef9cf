"""`trainwright submit RUN.yaml|RUN [key=value...] [--wait]`: start a run, or another attempt of one."""

import argparse
import sys
from typing import TYPE_CHECKING

from .host import add_host_options
from .job_plan import short_lines
from .output import add_json_option, emit
from .progress import RunProgress

if TYPE_CHECKING:
    from ..config.run import RunConfig
    from ..config.rundir import RunDir
    from ..launchers.plan import JobPlan
    from ..launchers.status import RunStatus
    from ..launchers.submission import Submitted

_PATIENCE_S = 1.0
"""For Slurm's guess when the job starts, which is only shown."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`submit RUN.yaml [key=value...] [--wait]`."""
    text = "start a run on Slurm or on this machine, or go on with one"
    parser = commands.add_parser("submit", help=text, description=text)
    parser.add_argument("run_file", metavar="RUN.yaml|RUN", help="run file, or a run's folder or name to go on with it")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields to change, such as cluster.nodes=2")
    parser.add_argument("--wait", action="store_true", help="follow the run until it ends")
    add_json_option(parser)
    add_host_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Submit; with --wait 0 if the run finished, 2 if a rank reported a user's mistake, 3 if the snapshot was not what
    it was, else 1."""
    from dataclasses import asdict

    submitted, job = _submit(arguments)
    record: dict[str, object] = {
        "run": str(submitted.run_dir.path),
        "attempt": submitted.attempt,
        "job_id": submitted.job_id,
        "pid": submitted.pid,
        **({"start": asdict(job.start), "estimates": _as_dicts(job)} if job else {}),
    }
    follow = "\n".join([_how_to_follow(submitted), *(short_lines(job) if job else [])])
    if not arguments.wait:
        emit(arguments, record, follow)
        return 0
    from ..config.verdicts import DISK_REFUSED, DO_NOT_RESTART
    from ..launchers.follow import wait_for_end

    print(follow, file=sys.stderr, flush=True)
    try:
        with RunProgress() as progress:
            last = wait_for_end(submitted.run_dir, progress.show)
    except KeyboardInterrupt:
        print("the run goes on", file=sys.stderr)
        raise
    emit(arguments, {**record, **asdict(last)}, _last_words(last))
    if last.state == "finished":
        return 0
    print(f"trainwright: {last.run}: {last.state}: {last.why}; see {last.log}", file=sys.stderr)
    return {DO_NOT_RESTART: 2, DISK_REFUSED: 2, 3: 3}.get(last.code or 1, 1)


def _submit(arguments: argparse.Namespace) -> "tuple[Submitted, JobPlan | None]":
    """The attempt, and what was known of its job before it was submitted."""
    from pathlib import Path

    from ..config.errors import UserError
    from ..config.loading import load_run
    from ..config.rundir import RunDir, find_run
    from ..launchers.another_attempt import continue_run
    from ..launchers.submission import submit_run

    path = Path(arguments.run_file)
    if path.is_file() or path.suffix in (".yaml", ".yml"):
        new = load_run(path, arguments.overrides)
        job = _job_plan(new, RunDir(Path(new.runs) / new.name))
        return submit_run(new, source=path), job
    try:
        found = find_run(arguments.run_file)
    except UserError:
        raise UserError(
            arguments.run_file, "neither a run file nor a run", "give RUN.yaml, or a run's folder or name"
        ) from None
    job = _job_plan(load_run(found.run_yaml, arguments.overrides), found)
    return continue_run(found, arguments.overrides), job


def _job_plan(run: "RunConfig", run_dir: "RunDir") -> "JobPlan | None":
    """None on this machine."""
    from ..launchers.job import render_script
    from ..launchers.plan import plan_job
    from ..launchers.submission import training_task

    if run.cluster.scheduler == "local":
        return None
    return plan_job(run, run_dir, render_script(training_task(run_dir, 1, run)), patience_s=_PATIENCE_S)


def _as_dicts(job: "JobPlan") -> dict[str, object]:
    from dataclasses import asdict

    return {name: asdict(estimate) for name, estimate in job.estimates.items()}


def _how_to_follow(submitted: "Submitted") -> str:
    run = submitted.run_dir.path
    place = f"Slurm job {submitted.job_id}" if submitted.job_id else f"process {submitted.pid} on this machine"
    return (
        f"run {submitted.run_dir.name}, attempt {submitted.attempt}: {place}\n"
        f"  trainwright status {run}\n  trainwright logs -f {run}\n  trainwright cancel {run}"
    )


def _last_words(last: "RunStatus") -> str:
    loss = "" if last.loss is None else f", loss {last.loss:.4f}"
    step = "" if last.step is None else f" at step {last.step}/{last.steps}"
    return f"{last.run}: {last.state}{step}{loss}"
