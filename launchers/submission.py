"""Submitting a run: check all, make the run directory, freeze, snapshot, start. Nothing is left on failure."""

import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from ..config.cluster import ClusterConfig
from ..config.loading import dump_run
from ..config.run import RunConfig
from ..config.rundir import RunDir, create_run_dir, shared_environments
from ..storage.loading.training_data import TrainingData
from ..tracking.ledger import LedgerWriter
from .container import folders_of
from .environment_archive import Environment, pack_environment
from .job import SubmittedTask, TaskSpec, submit_task
from .lead import signal_lead
from .processes import end_group
from .rank import run_attempt
from .run_checks import prepare_run
from .script import SupervisedRun
from .slurm import Slurm
from .snapshot import forget_run, snapshot_digest, take_snapshot
from .work_tree import WorkTree, read_work_tree

NOT_YET = "not-taken-yet"
"""Stands for the snapshot's digest in the script that `plan` shows."""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """One attempt under way: a Slurm job, or the controller process on this machine."""

    run_dir: RunDir
    attempt: int
    job_id: str | None
    pid: int | None


def submit_run(run: RunConfig, *, source: Path | None) -> Submitted:
    """Start a new run in a new run directory; `source` is the run file, for the ledger.

    Raises UserError before anything is written if a check fails; on any later failure the run directory is removed.
    """
    run, data = prepare_run(run)
    made = make_run(run, data, read_work_tree(Path.cwd(), Path(run.runs)))
    try:
        return start_attempt(made.run_dir, made.attempt, run, made.fields(source))
    except BaseException:
        made.forget()
        raise


@dataclass(frozen=True, kw_only=True)
class MadeRun:
    """A run directory with all that its first attempt needs; nothing is started."""

    run_dir: RunDir
    attempt: int
    run: RunConfig
    snapshot: str
    had_runs: bool
    """Whether the folder of runs was there before."""

    def fields(self, source: Path | None) -> dict[str, object]:
        """What the ledger says of its submission beside the job."""
        return {"source": str(source) if source else None, "snapshot": self.snapshot}

    def forget(self) -> None:
        """Remove it, since it could not be submitted."""
        forget_run(self.run_dir, self.had_runs)


def make_run(run: RunConfig, data: TrainingData, tree: WorkTree | None) -> MadeRun:
    """Make the directory of a run that was prepared; nothing is left on failure."""
    had_runs = Path(run.runs).exists()
    run_dir = create_run_dir(Path(run.runs), run.name)
    try:
        run_dir.run_yaml.write_text(dump_run(run), encoding="utf-8")
        with data.tokenizer_at_hand() as tokenizer:
            digest = take_snapshot(run_dir, Path(run.model), tokenizer, tree)
        attempt = run_dir.next_attempt()
        run_dir.attempt_yaml(attempt).write_text(dump_run(run), encoding="utf-8")
    except BaseException:
        forget_run(run_dir, had_runs)
        raise
    return MadeRun(run_dir=run_dir, attempt=attempt, run=run, snapshot=digest, had_runs=had_runs)


def training_task(run_dir: RunDir, attempt: int, run: RunConfig, staged: Environment | None = None) -> TaskSpec:
    """The task that an attempt is; `staged` is the archive for cluster.stage_environment, once it is made."""
    if run.cluster.stage_environment and staged is None:
        staged = Environment(archive=shared_environments(run_dir.path.parent) / NOT_YET, sha256=NOT_YET, num_bytes=0)
    return TaskSpec(
        name=run.name,
        title=f"Trainwright: run {run_dir.name}, attempt {attempt}",
        function=run_attempt,
        arguments=(str(run_dir.path), attempt),
        cluster=run.cluster.on_tier(),
        directory=run_dir.path,
        folder=run_dir.jobs,
        logs=run_dir.attempt_logs(attempt),
        template="train.sbatch",
        code=run_dir.code,
        seen=folders_of(run_dir, run),
        staged=staged,
        run=SupervisedRun(
            folder=str(run_dir.path),
            attempt=attempt,
            lead_s=signal_lead(run_dir, run),
            snapshot=snapshot_digest(run_dir) or NOT_YET,
        ),
        imports=_imported_before_forks(run),
    )


def _imported_before_forks(run: RunConfig) -> tuple[str, ...]:
    """Modules that a node's ranks share by forking; none with GPUs, since CUDA survives no fork."""
    return () if run.cluster.gpus_per_node else (f"trainwright.parallelism.{run.parallelism.engine}.imports",)


def start_attempt(run_dir: RunDir, attempt: int, run: RunConfig, fields: dict[str, object]) -> Submitted:
    """Submit an attempt whose files are in place, and record that; nothing is under way after a failure."""
    staged = staged_environment(run)
    task = submit_task(training_task(run_dir, attempt, run, staged))
    try:
        return record_submission(run_dir, attempt, run, task, fields | environment_fields(staged))
    except BaseException:  # a job that no ledger knows could never be found again
        _undo(task, run.cluster)
        raise


def staged_environment(run: RunConfig) -> Environment | None:
    """The archive of the Python environment for cluster.stage_environment, made if need be. Raises UserError."""
    if run.cluster.stage_environment is None:
        return None
    return pack_environment(Path(run.runs), run.cluster.python or sys.executable)


def environment_fields(staged: Environment | None) -> dict[str, object]:
    """What the ledger says of it."""
    return {"environment": {"sha256": staged.sha256, "bytes": staged.num_bytes}} if staged else {}


def record_submission(
    run_dir: RunDir, attempt: int, run: RunConfig, task: SubmittedTask, fields: dict[str, object]
) -> Submitted:
    """Write into the ledger what an attempt was submitted as."""
    LedgerWriter(run_dir, attempt, "submit").write(
        "submit",
        scheduler=run.cluster.scheduler,
        job_id=task.job_id,
        pid=task.pid,
        pid_start_time=task.pid_start_time,
        pgid=task.pid,  # the controller leads a session of its own
        host=socket.gethostname(),
        nodes=run.cluster.nodes,
        world_size=run.cluster.world_size,
        **fields,
    )
    return Submitted(run_dir=run_dir, attempt=attempt, job_id=task.job_id, pid=task.pid)


def _undo(task: SubmittedTask, cluster: ClusterConfig) -> None:
    if task.job_id is not None:
        Slurm(cluster).cancel(task.job_id)
    elif task.pid is not None:
        end_group(task.pid)
