"""`trainwright submit RUN.yaml|RUN [key=value...] [--then export|serve] [--wait]`: start a run, or go on with one."""

import argparse
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from .host import add_host_options
from .job_plan import short_lines
from .output import add_json_option, emit
from .progress import RunProgress
from .status import then_text
from .then import Then, add_then_option, do_then_here, read_then, submit_then

if TYPE_CHECKING:
    from ..config.run import RunConfig
    from ..config.rundir import RunDir
    from ..launchers.plan import JobPlan
    from ..launchers.status import RunStatus
    from ..launchers.submission import Submitted
    from ..serving.chain import Followers

_PATIENCE_S = 1.0
"""For Slurm's guess when the job starts, which is only shown."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`submit RUN.yaml|RUN [key=value...] [--then export|serve] [--wait]`."""
    text = "start a run on Slurm or on this machine, or go on with one"
    parser = commands.add_parser("submit", help=text, description=text)
    parser.add_argument("run_file", metavar="RUN.yaml|RUN", help="run file, or a run's folder or name to go on with it")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields to change, such as cluster.nodes=2")
    add_then_option(parser)
    parser.add_argument("--wait", action="store_true", help="follow the run until it ends")
    add_json_option(parser)
    add_host_options(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class _Started:
    """An attempt under way, what was known of its job before, and the jobs that wait for it."""

    attempt: "Submitted"
    job: "JobPlan | None"
    followers: "Followers | None"

    def record(self) -> dict[str, object]:
        """For --json."""
        return {
            "run": str(self.attempt.run_dir.path),
            "attempt": self.attempt.attempt,
            "job_id": self.attempt.job_id,
            "pid": self.attempt.pid,
            **({"start": asdict(self.job.start), "estimates": _as_dicts(self.job)} if self.job else {}),
            **({"then": asdict(self.followers)} if self.followers else {}),
        }

    def text(self) -> str:
        """For people."""
        job = short_lines(self.job) if self.job else []
        then = [f"  {then_text(asdict(self.followers))}"] if self.followers else []
        return "\n".join([_how_to_follow(self.attempt), *job, *then])


def run(arguments: argparse.Namespace) -> int:
    """Submit; with --wait 0 if the run finished, 2 if a rank reported a user's mistake, 3 if the snapshot was not what
    it was, else 1."""
    then = read_then(arguments.then)
    started = _submit(arguments, then)
    _warn_of_layout(started.attempt.run_dir)
    if not arguments.wait:
        emit(arguments, started.record(), started.text())
        return 0
    from ..config.verdicts import DISK_REFUSED, DO_NOT_RESTART
    from ..launchers.follow import wait_for_end

    print(started.text(), file=sys.stderr, flush=True)
    run_dir = started.attempt.run_dir
    try:
        with RunProgress() as progress:
            last = wait_for_end(run_dir, progress.show)
    except KeyboardInterrupt:
        print("the run goes on", file=sys.stderr)
        raise
    done = do_then_here(then, run_dir) if then and not started.job and last.state == "finished" else None
    record = {**started.record(), **asdict(last), **({"then": done.record} if done else {})}
    emit(arguments, record, "\n".join([_last_words(last), *([done.text] if done else [])]))
    if last.state == "finished":
        return 0
    print(f"trainwright: {last.run}: {last.state}: {last.why}; see {last.log}", file=sys.stderr)
    return {DO_NOT_RESTART: 2, DISK_REFUSED: 2, 3: 3}.get(last.code or 1, 1)


def _submit(arguments: argparse.Namespace, then: Then | None) -> _Started:
    from pathlib import Path

    from ..config.loading import load_run
    from ..config.rundir import RunDir
    from ..launchers.another_attempt import continue_run
    from ..launchers.submission import submit_run

    path = Path(arguments.run_file)
    old = None if path.is_file() or path.suffix in (".yaml", ".yml") else _run_to_go_on(arguments.run_file)
    run = load_run(old.run_yaml if old else path, arguments.overrides)
    on_slurm = run.cluster.scheduler == "slurm"
    if then and (on_slurm or not arguments.wait):
        from ..serving.chain import check_chain

        check_chain(run, then.serve)
    job = _job_plan(run, old or RunDir(Path(run.runs) / run.name)) if on_slurm else None
    attempt = continue_run(old, arguments.overrides) if old else submit_run(run, source=path)
    followers = submit_then(then, attempt, run) if then and on_slurm else None
    return _Started(attempt, job, followers)


def _warn_of_layout(run_dir: "RunDir") -> None:
    from ..config.certificates import NOT_VERIFIED, proof
    from ..config.layout_rules import layout_of
    from ..config.loading import load_frozen
    from ..config.model_reader import read_model
    from ..config.unwise import unwise

    run, model = load_frozen(run_dir.run_yaml), read_model(run_dir.model_config)
    for words in unwise(run, model, layout_of(run, model)):
        print(f"warning: {words}", file=sys.stderr)
    if proof(run, model) == NOT_VERIFIED:
        print(f"warning: the layout is {NOT_VERIFIED}", file=sys.stderr)


def _run_to_go_on(name: str) -> "RunDir":
    from ..config.errors import UserError
    from ..config.rundir import find_run

    try:
        return find_run(name)
    except UserError:
        raise UserError(name, "neither a run file nor a run", "give RUN.yaml, or a run's folder or name") from None


def _job_plan(run: "RunConfig", run_dir: "RunDir") -> "JobPlan":
    from ..launchers.job import render_script
    from ..launchers.plan import plan_job
    from ..launchers.submission import training_task

    return plan_job(run, run_dir, render_script(training_task(run_dir, 1, run)), patience_s=_PATIENCE_S)


def _as_dicts(job: "JobPlan") -> dict[str, object]:
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
