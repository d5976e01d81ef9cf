"""A sweep on Slurm: many runs at once, each a task of an array and a run of its own in all else.

Runs whose scripts would be the same but for the run's folder are one array, split to what the cluster takes.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from ..config.errors import UserError
from ..config.run import RunConfig
from ..config.rundir import create_array_folder
from ..storage.loading.training_data import TrainingData
from .array_limits import require_room, tasks_per_array
from .cluster_limits import require_possible
from .container import folders_of
from .environment_archive import Environment
from .job import TaskSpec, submit_attempts
from .lead import signal_lead
from .packs import for_all, link
from .rank import run_attempt
from .run_checks import prepare_run
from .script import SupervisedRun
from .slurm import Slurm
from .submission import MadeRun, Submitted, environment_fields, make_run, record_submission, staged_environment
from .work_tree import read_work_tree

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is submitted together."""

    name: str
    """Slurm's job name of all tasks."""
    source: Path
    """The run file, for the ledgers."""
    at_once: int = 0
    """Runs that may run at the same time; 0: as many as the cluster starts."""
    per_node: int = 1
    """Runs that share a node and a job, side by side."""


def check_sweep(runs: Sequence[RunConfig], per_node: int = 1) -> list[tuple[RunConfig, TrainingData]]:
    """Check every run as `submit` would, and that the cluster takes so many, so many of them on a node.

    Raises UserError; writes nothing.
    """
    if per_node > 1:
        _check_packs(runs, per_node)
    prepared = [prepare_run(run) for run in runs]
    if len({run.cluster.scheduler for run in runs}) > 1:
        raise UserError("cluster.scheduler", "slurm in some runs, local in others", "sweep over one kind of place")
    if runs[0].cluster.scheduler == "slurm":
        for places in _alike(
            runs, lambda run: run.cluster.on_tier().model_dump_json(include={"slurm_conf", "account", "qos"})
        ):
            require_room(places[0].cluster.on_tier(), -(-len(places) // per_node))
    return prepared


def _check_packs(runs: Sequence[RunConfig], per_node: int) -> None:
    """Whether so many of each of these runs can share a node."""
    for run in runs:
        if run.cluster.scheduler == "local":
            raise UserError("--per-node", f"{per_node}, but there is no Slurm here", "give a profile with Slurm")
        if run.cluster.nodes > 1:
            remedy = "set cluster.nodes=1, or leave --per-node out"
            raise UserError("--per-node", f"{per_node}, but a run has {run.cluster.nodes} nodes", remedy)
    for cluster in {run.cluster.model_dump_json(): run.cluster for run in runs}.values():
        require_possible(cluster.on_tier())
        try:
            require_possible(for_all(cluster.on_tier(), per_node))
        except UserError as error:
            problem = f"{per_node}, which together ask for too much: {error.where}: {error.problem} ({error.remedy})"
            raise UserError("--per-node", problem, "let fewer runs share a node") from None


def submit_sweep(sweep: Sweep, prepared: Sequence[tuple[RunConfig, TrainingData]]) -> list[Submitted]:
    """Submit runs that were checked, all or none; in their order."""
    tree = read_work_tree(Path.cwd(), Path(prepared[0][0].runs))
    made: list[MadeRun] = []
    arrays: list[_Array] = []
    try:
        for run, data in prepared:
            made.append(make_run(run, data, tree))
        submitted: dict[Path, Submitted] = {}
        for members in _arrays(made, sweep.per_node):
            array = _Array(sweep, members)
            arrays.append(array)
            after = arrays[-2].job_id if sweep.at_once and len(arrays) > 1 else None
            submitted.update({one.run_dir.path: one for one in array.submit(after)})
    except BaseException:
        for array in arrays:
            array.undo()
        for one in reversed(made):  # the first one knows whether there was a folder of runs
            one.forget()
        raise
    return [submitted[one.run_dir.path] for one in made]


class _Array:
    """Some runs of a sweep as one array. Task N finds its run as the link N in its folder, or its runs in folder N."""

    def __init__(self, sweep: Sweep, members: Sequence[MadeRun]) -> None:
        self._sweep, self._members = sweep, members
        self.job_id: str | None = None
        self.folder = create_array_folder(Path(members[0].run.runs), sweep.name)

    def submit(self, after: str | None) -> list[Submitted]:
        """Submit it, to start when the array `after` has ended, and record that in each run's ledger."""
        for number, one in enumerate(self._members):
            self._place_of(number).symlink_to(one.run_dir.path)
        calls = [(one.run_dir.jobs, (str(one.run_dir.path), one.attempt)) for one in self._members]
        staged = staged_environment(self._members[0].run)
        said = environment_fields(staged)
        tasks = submit_attempts(self._task(after, staged), calls)
        self.job_id = str(tasks[0].job_id).partition("_")[0]
        return [
            record_submission(
                one.run_dir, one.attempt, one.run, task, one.fields(self._sweep.source) | said | self._shares(number)
            )
            for number, (one, task) in enumerate(zip(self._members, tasks, strict=True))
        ]

    @property
    def _packed(self) -> int:
        """Runs to a task."""
        return min(self._sweep.per_node, len(self._members))

    def _place_of(self, number: int) -> Path:
        """Where a task finds the Nth run."""
        if self._packed == 1:
            return self.folder / str(number)
        pack = self.folder / str(number // self._packed)
        pack.mkdir(mode=0o700, exist_ok=True)
        return link(pack, number % self._packed)

    def _shares(self, number: int) -> dict[str, object]:
        """What the Nth run's ledger says of those with which it shares a job."""
        return {"pack": str(self._place_of(number).parent)} if self._packed > 1 else {}

    def undo(self) -> None:
        """End what was submitted and remove the folder."""
        if self.job_id is not None:
            Slurm(self._members[0].run.cluster).cancel(self.job_id)
        shutil.rmtree(self.folder, ignore_errors=True)
        if not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _task(self, after: str | None, staged: Environment | None) -> TaskSpec:
        first = self._members[0]
        return TaskSpec(
            name=self._sweep.name,
            title=f"Trainwright: sweep {self._sweep.name}, {len(self._members)} runs, attempt {first.attempt} of each",
            function=run_attempt,
            cluster=first.run.cluster.on_tier(),
            directory=self.folder,
            folder=self.folder,
            logs=self.folder,
            template="pack.sbatch" if self._packed > 1 else "train.sbatch",
            side_by_side=self._packed,
            code=first.run_dir.code,
            run=SupervisedRun(
                folder=str(self.folder),
                attempt=first.attempt,
                lead_s=signal_lead(first.run_dir, first.run),
                snapshot=first.snapshot,
            ),
            seen=tuple(dict.fromkeys(place for one in self._members for place in folders_of(one.run_dir, one.run))),
            staged=staged,
            array=len(self._members) // self._packed,
            at_once=self._sweep.at_once // self._packed,
            after_any=after,
        )


def _arrays(made: Sequence[MadeRun], per_node: int) -> Iterator[Sequence[MadeRun]]:
    """Runs that one script does for, no more together than an array takes; those that fill no node come last."""
    for members in _alike(made, lambda one: f"{one.run.runs} {one.snapshot} {one.run.cluster.model_dump_json()}"):
        size = tasks_per_array(members[0].run.cluster) * per_node
        whole = len(members) // per_node * per_node
        for start in range(0, whole, size):
            yield members[start : min(start + size, whole)]
        if whole < len(members):
            yield members[whole:]


def _alike(items: Sequence[Item], key: Callable[[Item], str]) -> list[list[Item]]:
    """Items with the same key, in order."""
    return [list(group) for _, group in groupby(sorted(items, key=key), key=key)]
