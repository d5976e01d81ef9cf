"""Submitting any task: one callable, run once per rank, on Slurm or on this machine."""

import runpy
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.cluster import ClusterConfig
from ..config.errors import UserError
from .container import command_words, require_container, srun_options
from .packs import for_all
from .processes import start_time
from .script import ScriptFacts, SupervisedRun, render
from .task import TaskEnded, take_signals_back

if TYPE_CHECKING:
    import submitit

    from .environment_archive import Environment


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """What is run, and where. `function(*arguments)` runs in each of cluster.world_size processes."""

    name: str
    """Job name: letters, digits, dot, dash, underscore."""
    title: str
    """One line at the top of the script."""
    function: Callable[..., object]
    """A module-level function (it is pickled by name). A non-zero end is `raise TaskEnded(code, message)`."""
    arguments: tuple[object, ...] = ()
    """Its arguments: plain values, no secrets, since they are pickled into `folder`."""
    cluster: ClusterConfig
    """Nodes, ranks per node and everything else about the place. A single task: nodes 1, ranks_per_node 1."""
    directory: Path
    """Working directory; exists, and is shared by all nodes."""
    folder: Path
    """Submitit's folder: script, pickles, results. Made if missing."""
    logs: Path
    """Folder of batch.log and 00000.log, 00001.log, ... Made if missing."""
    template: str = "tasks.sbatch"
    """File in sbatch_templates."""
    code: Path | None = None
    """Folder put first on the import path, or None for the installed code."""
    run: SupervisedRun | None = None
    """The run that this is an attempt of: the supervisor records its end and starts it again. Only for train.sbatch."""
    environment: tuple[str, ...] = ()
    """Names of variables that pass from this shell beside the allow-list and cluster.environment."""
    imports: tuple[str, ...] = ()
    """Modules that every rank imports. On this machine that is done once, before ranks are forked from one process."""
    array: int = 0
    """Tasks of a Slurm array, each a job of this cluster section with its number in $SLURM_ARRAY_TASK_ID; 0: no array.
    Their logs are 00000-N.log and batch-N.log, of task N; where each is an attempt of a run, they are the run's."""
    at_once: int = 0
    """Tasks of the array that may run at once; 0: all."""
    side_by_side: int = 1
    """Runs that share the job, or each task of the array, on one node; each has `cluster`. Only for pack.sbatch."""
    staged: "Environment | None" = None
    """Archive of the Python environment that the ranks use from cluster.stage_environment. Only for train.sbatch."""
    seen: tuple[Path, ...] = ()
    """Folders that ranks need, beside `directory`: what a container has to show them. Only for train.sbatch."""
    after: tuple[str, ...] = ()
    """Slurm jobs that must have ended well before this one starts; it is cancelled if one does not."""
    after_any: str | None = None
    """A Slurm job that must have ended before, no matter how."""


@dataclass(frozen=True, kw_only=True)
class SubmittedTask:
    """A task that is under way: a Slurm job, or a process group of this machine (pid is its controller and pgid)."""

    job_id: str | None
    """Of an array, the id of the whole."""
    pid: int | None
    pid_start_time: int | None
    """Clock ticks since boot, to tell the process from a later one with the same id."""
    job: "submitit.Job[Any]"
    """Submitit's job, of an array its first one; its results can be trusted, its state cannot."""


def submit_task(spec: TaskSpec) -> SubmittedTask:
    """Submit to Slurm or start here, as spec.cluster.scheduler says; returns at once.

    Raises UserError if the cluster refuses or this machine cannot do it. Nothing runs then.
    """
    from .executors import DetachedLocalExecutor, TemplateSlurmExecutor

    facts = script_facts(spec)
    _check_folder(spec.folder)
    if spec.cluster.scheduler == "local":
        if spec.array or spec.after:
            raise UserError("cluster.scheduler", "local, which has no array jobs", "give a profile with Slurm")
        _check_local(spec.cluster)
    else:
        from .cluster_limits import require_possible
        from .slurm import Slurm

        Slurm(spec.cluster).check()
        require_possible(spec.cluster, spec.array)
        require_container(spec.cluster)
    for folder in (spec.folder, spec.logs):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if spec.cluster.scheduler == "slurm":
        executor = TemplateSlurmExecutor(spec.folder, spec.template, facts)
        if spec.array:
            job = executor.submit_array(spec.function, *spec.arguments)
        else:
            job = executor.submit(spec.function, *spec.arguments)
        job_id = job.job_id.partition("_")[0]
        return SubmittedTask(job_id=job_id, pid=None, pid_start_time=None, job=job)
    job = DetachedLocalExecutor(spec.folder, facts).submit(spec.function, *spec.arguments)
    pid = int(job.job_id)
    return SubmittedTask(job_id=None, pid=pid, pid_start_time=start_time(pid) or 0, job=job)


def submit_attempts(spec: TaskSpec, calls: Sequence[tuple[Path, tuple[object, ...]]]) -> list[SubmittedTask]:
    """Submit an array of attempts, each of a run of its own: the folder for Submitit's files and the arguments of each.

    With spec.side_by_side, each task has so many of the runs.

    Raises UserError if the cluster refuses. Nothing runs then.
    """
    from .executors import TemplateSlurmExecutor

    for folder, _ in calls:
        _check_folder(folder)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    executor = TemplateSlurmExecutor(spec.folder, spec.template, script_facts(spec))
    jobs = executor.submit_calls(spec.function, calls, spec.side_by_side)
    return [SubmittedTask(job_id=job.job_id, pid=None, pid_start_time=None, job=job) for job in jobs]


def render_script(spec: TaskSpec) -> str:
    """The batch script that submit_task would hand to sbatch."""
    return render(spec.template, script_facts(spec))


def script_facts(spec: TaskSpec) -> ScriptFacts:
    """What the template shows of a task."""
    python = shlex.quote(spec.cluster.python or sys.executable)
    inner, before, options = python, "", []
    if spec.cluster.container and spec.run:
        inner = shlex.quote(spec.cluster.container.python)
        before = "".join(f"{shlex.quote(word)} " for word in command_words(spec.cluster, spec.directory, spec.seen))
        options = srun_options(spec.cluster, spec.directory, spec.seen)
    if spec.staged:
        inner = f'{python} -I -S "$run"/snapshot/code/trainwright/launchers/staged.py {_staged(spec)}'
    folder = '"$run"/jobs' if spec.run else shlex.quote(str(spec.folder))  # known to the script of an attempt
    return ScriptFacts(
        title=spec.title,
        name=spec.name,
        cluster=for_all(spec.cluster, spec.side_by_side),
        share=spec.cluster if spec.side_by_side > 1 else None,
        side_by_side=spec.side_by_side,
        directory=spec.directory,
        logs=spec.logs,
        command=f"{before}{inner} -u -m trainwright.launchers.worker {folder}",
        container=tuple(options),
        python=python,
        code=spec.code,
        run=spec.run,
        environment=spec.environment,
        imports=spec.imports,
        array=spec.array,
        at_once=spec.at_once,
        after=spec.after,
        after_any=spec.after_any,
    )


def _staged(spec: TaskSpec) -> str:
    assert spec.staged
    return shlex.join([str(spec.cluster.stage_environment), spec.staged.sha256, str(spec.staged.archive)])


def run_module(module: str, *arguments: str) -> int:
    """A task: `python -m module arguments...` in this process. What it exits with becomes the task's exit code."""
    take_signals_back()
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if code:
            raise TaskEnded(code, f"{module} ended with {ended.code}") from None
    return 0


_ONLY_SLURM = (
    *("modules", "partition", "account", "qos", "constraint", "exclude", "memory_per_node", "gpu_type"),
    *("container", "stage_environment"),
)


def _check_folder(folder: Path) -> None:
    for mark in ("%j", "%t", "%A", "%a"):
        if mark in str(folder):
            raise UserError(str(folder), f"{mark} in a path stands for a job's numbers", "use a folder without it")


def _check_local(cluster: ClusterConfig) -> None:
    if cluster.nodes > 1:
        raise UserError(
            "cluster.nodes",
            f"{cluster.nodes}, but scheduler local has this machine alone",
            "set cluster.nodes=1, or a profile with Slurm such as cluster.profile=dev",
        )
    if cluster.python and not shutil.which(cluster.python):
        raise UserError(
            "cluster.python", f"{cluster.python} is no program on this machine", "give a Python, or leave it out"
        )
    for field in _ONLY_SLURM:
        value = getattr(cluster, field)
        if value:
            raise UserError(
                f"cluster.{field}", repr(value), "only Slurm jobs have it; remove it or set scheduler: slurm"
            )
