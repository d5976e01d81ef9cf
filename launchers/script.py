"""Rendering the batch script: pure, from what is asked for to the text that sbatch gets."""

import functools
import shlex
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2

from ..config.cluster import ClusterConfig
from .environment import exported_names


@dataclass(frozen=True, kw_only=True)
class SupervisedRun:
    """A run whose job the supervisor starts again when it ended early."""

    folder: str
    """Its run directory; of an array, a folder with a link to each task's run directory, named by the task's number."""
    attempt: int
    """Number of the attempt that is submitted."""
    lead_s: int
    """Seconds before the time limit at which Slurm warns the batch script."""
    snapshot: str
    """Digest of what the run is made of; nothing is started from another."""


@dataclass(frozen=True, kw_only=True)
class ScriptFacts:
    """What a template shows."""

    title: str
    """One line for people who read the script."""
    name: str
    """Slurm's job name."""
    cluster: ClusterConfig
    directory: Path
    """Working directory of the job."""
    logs: Path
    """Folder of batch.log and of one log per rank."""
    command: str
    """Shell command that each rank runs."""
    python: str
    """Interpreter, quoted for the shell."""
    code: Path | None
    """Folder put on PYTHONPATH."""
    run: SupervisedRun | None
    """The run whose attempt this is; None for other tasks."""
    environment: tuple[str, ...]
    """Names of more variables that pass from the submitting shell."""
    imports: tuple[str, ...] = ()
    """Modules that every rank needs; on this machine they are imported once, and the ranks are forks."""
    array: int = 0
    """Tasks of an array, each a job of its own; 0: no array."""
    share: ClusterConfig | None = None
    """What each of several runs has that share the job; None: the job is of one."""
    side_by_side: int = 1
    """How many runs share the job."""
    at_once: int = 0
    """How many tasks of the array may run at once; 0: all."""
    after: tuple[str, ...] = ()
    """Jobs that must have ended well before."""
    after_any: str | None = None
    """A job that must have ended before, no matter how."""
    container: tuple[str, ...] = ()
    """Options of srun for a container, quoted."""

    @property
    def binding(self) -> list[str]:
        """Options of srun that say where ranks, their memory and their GPUs are."""
        return binding(self.cluster)


def binding(cluster: ClusterConfig) -> list[str]:
    """Options of srun: ranks are numbered node by node, and on a node socket by socket, as its GPUs are."""
    options = ["--distribution=block:block", f"--cpu-bind={cluster.cpu_bind}"]
    if cluster.mem_bind:
        options.append(f"--mem-bind={cluster.mem_bind}")
    if cluster.gpus_per_node:
        options.append(f"--gpu-bind={cluster.gpu_bind}")
    return [shlex.quote(option) for option in options]


def render(template: str, facts: ScriptFacts) -> str:
    """The text of a batch script from `sbatch_templates/<template>`."""
    text = (
        _environment()
        .get_template(template)
        .render(
            job=facts,
            cluster=facts.cluster,
            export=",".join(exported_names(facts.cluster, facts.environment)),
        )
    )
    return text.rstrip("\n") + "\n"


@functools.cache
def _environment() -> jinja2.Environment:
    """Templates are compiled once: `submit` shows the plan of a job, then makes its script."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_load),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["shell"] = lambda value: shlex.quote(str(value))
    environment.filters["log"] = lambda path: shlex.quote(str(path).replace("%", "%%"))  # % starts a Slurm pattern
    return environment


def _load(name: str) -> str:
    return resources.files("trainwright.sbatch_templates").joinpath(name).read_text(encoding="utf-8")
