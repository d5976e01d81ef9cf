"""Submitting a run: check all, make the run directory, freeze, snapshot, start. Nothing is left on failure."""

import contextlib
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config.cluster import ClusterConfig
from ..config.errors import FoundBad, UserError
from ..config.layout import Layout, layout_of
from ..config.loading import dump_run, load_frozen, load_run
from ..config.model import ModelShape, read_model
from ..config.run import RunConfig
from ..config.rundir import RunDir, create_run_dir
from ..storage.checkpoints.checkpoint import committed_steps, find_checkpoint, open_checkpoint, require_fit
from ..storage.checkpoints.hf_weights import HuggingFaceWeights
from ..storage.loading.training_data import TrainingData
from ..storage.tokens.tokenizer import take_tokenizer
from ..tracking.ledger import LedgerWriter
from .cluster_limits import require_possible
from .container import folders_of, require_container
from .data_checks import check_data, check_stages
from .job import SubmittedTask, TaskSpec, submit_task
from .lead import signal_lead
from .processes import end_group
from .rank import run_attempt
from .script import SupervisedRun
from .slurm import Slurm
from .snapshot import forget_run, require_intact, snapshot_digest, take_snapshot
from .work_tree import WorkTree, read_work_tree

MAY_CHANGE = (
    "parallelism",
    "cluster",
    "checkpoint",
    "tracking",
    "preflight",
    "train.steps",
    "train.recompute",
    "train.micro_batch_size",
    "data.stages",
    "data.read",
    "data.stage_to",
    "data.on_bad_chunk",
    "data.quality",
    "data.max_unknown",
)
"""What another attempt may change; the rest decides what is computed. Of data.stages only what is still to come."""


NOT_YET = "not-taken-yet"
"""Stands for the snapshot's digest in the script that `plan` shows."""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """One attempt under way: a Slurm job, or the controller process on this machine."""

    run_dir: RunDir
    attempt: int
    job_id: str | None
    pid: int | None


def check_run(run: RunConfig) -> tuple[Layout, TrainingData]:
    """Check model, layout, stores and cluster as far as this machine can; UserError names what is wrong."""
    model = read_model(Path(run.model))
    layout = layout_of(run, model)
    data = TrainingData.open(run.data)
    check_data(run, data, model)
    _check_place(run.cluster)
    return layout, data


def submit_run(run: RunConfig, *, source: Path | None) -> Submitted:
    """Start a new run in a new run directory; `source` is the run file, for the ledger.

    Raises UserError before anything is written if a check fails; on any later failure the run directory is removed.
    """
    run, data = prepare_run(run)
    made = make_run(run, data, read_work_tree(Path.cwd(), Path(run.runs)))
    try:
        return _start(made.run_dir, made.attempt, run, made.fields(source))
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


def prepare_run(run: RunConfig) -> tuple[RunConfig, TrainingData]:
    """Check a new run; as it will be frozen, and its data. Raises UserError; writes nothing."""
    _, data = check_run(run)
    return _with_start(_with_generations(run, data), read_model(Path(run.model)), data, None), data


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


def continue_run(run_dir: RunDir, overrides: Sequence[str]) -> Submitted:
    """Start another attempt of a run, with the snapshot that it has.

    Raises UserError if a field may not change, or while an attempt is queued or running, FoundBad if the snapshot is
    not what it was. A failed start leaves the run as it was.
    """
    from .status import read_status

    old = load_frozen(run_dir.run_yaml)
    run = load_run(run_dir.run_yaml, overrides)
    _only_allowed_changes(old, run)
    digest = require_intact(run_dir)
    now = read_status(run_dir)
    if now.state in ("queued", "running"):
        raise UserError(str(run_dir.path), f"is {now.state}", f"wait for it, or `trainwright cancel {run_dir.path}`")
    _, data = check_run(run.model_copy(update={"model": str(run_dir.model_config)}))
    run = _with_start(run, read_model(run_dir.model_config), data, run_dir)
    check_stages(old, run, run_dir)
    before = run_dir.run_yaml.read_text(encoding="utf-8")
    attempt = run_dir.next_attempt()
    try:
        run_dir.attempt_yaml(attempt).write_text(dump_run(run), encoding="utf-8")
        _replace(run_dir.run_yaml, dump_run(run))
        return _start(run_dir, attempt, run, {"source": None, "overrides": list(overrides), "snapshot": digest})
    except BaseException:
        _replace(run_dir.run_yaml, before)
        run_dir.attempt_yaml(attempt).unlink(missing_ok=True)
        for folder in (run_dir.attempt_logs(attempt), run_dir.ledger_file(attempt, "submit").parent):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def training_task(run_dir: RunDir, attempt: int, run: RunConfig) -> TaskSpec:
    """The task that an attempt is."""
    return TaskSpec(
        name=run.name,
        title=f"Trainwright: run {run_dir.name}, attempt {attempt}",
        function=run_attempt,
        arguments=(str(run_dir.path), attempt),
        cluster=run.cluster,
        directory=run_dir.path,
        folder=run_dir.jobs,
        logs=run_dir.attempt_logs(attempt),
        template="train.sbatch",
        code=run_dir.code,
        seen=folders_of(run_dir, run),
        run=SupervisedRun(
            folder=str(run_dir.path),
            attempt=attempt,
            lead_s=signal_lead(run_dir, run),
            snapshot=snapshot_digest(run_dir) or NOT_YET,
        ),
        imports=() if run.cluster.gpus_per_node else ("trainwright.parallelism.imports",),  # CUDA survives no fork
    )


def _start(run_dir: RunDir, attempt: int, run: RunConfig, fields: dict[str, object]) -> Submitted:
    task = submit_task(training_task(run_dir, attempt, run))
    try:
        return record_submission(run_dir, attempt, run, task, fields)
    except BaseException:  # a job that no ledger knows could never be found again
        _undo(task, run.cluster)
        raise


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


def _with_generations(run: RunConfig, data: TrainingData) -> RunConfig:
    """Pin the generations of the stores, so that what is appended later does not change the run's order."""
    pairs = zip(run.data.train, data.generations, strict=True)
    train = [source.model_copy(update={"generation": generation}) for source, generation in pairs]
    return run.model_copy(update={"data": run.data.model_copy(update={"train": train})})


def _with_start(run: RunConfig, model: ModelShape, data: TrainingData, run_dir: RunDir | None) -> RunConfig:
    """Check the checkpoint that training would go on from, and name another run's by its folder.

    A name means nothing on a node. A corrupt checkpoint is left to the ranks: they set it aside.
    """
    steps = committed_steps(run_dir) if run_dir else []
    if run_dir and steps:
        with contextlib.suppress(FoundBad):
            require_fit(open_checkpoint(run_dir.checkpoint(steps[-1])), run, model, data.tokenizer_fingerprint)
        return run
    if run.checkpoint.init_from is not None:
        _check_weights(Path(run.checkpoint.init_from), model, data.tokenizer_fingerprint)
    if run.checkpoint.resume_from is None:
        return run
    try:
        checkpoint = find_checkpoint(run.checkpoint.resume_from)
    except UserError as error:
        raise UserError("checkpoint.resume_from", error.problem, error.remedy) from None
    require_fit(checkpoint, run, model, data.tokenizer_fingerprint)
    section = run.checkpoint.model_copy(update={"resume_from": str(checkpoint.folder)})
    return run.model_copy(update={"checkpoint": section})


def _check_weights(folder: Path, model: ModelShape, fingerprint: str) -> None:
    """The folder holds the model's weights, and its tokenizer, if it has one, is that of the stores."""
    HuggingFaceWeights(folder, model)
    if (folder / "tokenizer.json").is_file() and take_tokenizer(folder).fingerprint() != fingerprint:
        remedy = f"build them with --tokenizer {folder}"
        raise UserError("data.train", f"the stores' tokenizer is not that of checkpoint.init_from {folder}", remedy)


def _check_place(cluster: ClusterConfig) -> None:
    if cluster.scheduler == "slurm":
        Slurm(cluster).check()
        require_possible(cluster)
        require_container(cluster)


def _only_allowed_changes(old: RunConfig, new: RunConfig) -> None:
    for field, before, after in _differences(old.model_dump(), new.model_dump(), ""):
        if not any(field == allowed or field.startswith(f"{allowed}.") for allowed in MAY_CHANGE):
            raise UserError(
                field,
                f"{after!r}, but the run was started with {before!r}",
                f"start a new run, or change only {', '.join(MAY_CHANGE)}",
            )


def _differences(old: object, new: object, field: str) -> list[tuple[str, object, object]]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [found for key in old for found in _differences(old[key], new[key], f"{field}.{key}".lstrip("."))]
    return [] if old == new else [(field, old, new)]


def _replace(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
