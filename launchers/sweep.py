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
from .container import folders_of
from .environment_archive import Environment
from .job import TaskSpec, submit_attempts
from .lead import signal_lead
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


def check_sweep(runs: Sequence[RunConfig]) -> list[tuple[RunConfig, TrainingData]]:
    """Check every run as `submit` would, and that the cluster takes so many. Raises UserError; writes nothing."""
    prepared = [prepare_run(run) for run in runs]
    if len({run.cluster.scheduler for run in runs}) > 1:
        raise UserError("cluster.scheduler", "slurm in some runs, local in others", "sweep over one kind of place")
    if runs[0].cluster.scheduler == "slurm":
        for places in _alike(
            runs, lambda run: run.cluster.on_tier().model_dump_json(include={"slurm_conf", "account", "qos"})
        ):
            require_room(places[0].cluster.on_tier(), len(places))
    return prepared


def submit_sweep(sweep: Sweep, prepared: Sequence[tuple[RunConfig, TrainingData]]) -> list[Submitted]:
    """Submit runs that were checked, all or none; in their order."""
    tree = read_work_tree(Path.cwd(), Path(prepared[0][0].runs))
    made: list[MadeRun] = []
    arrays: list[_Array] = []
    try:
        for run, data in prepared:
            made.append(make_run(run, data, tree))
        submitted: dict[Path, Submitted] = {}
        for members in _arrays(made):
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
    """Some runs of a sweep as one array, in whose folder task N finds its run as the link N."""

    def __init__(self, sweep: Sweep, members: Sequence[MadeRun]) -> None:
        self._sweep, self._members = sweep, members
        self.job_id: str | None = None
        self.folder = create_array_folder(Path(members[0].run.runs), sweep.name)

    def submit(self, after: str | None) -> list[Submitted]:
        """Submit it, to start when the array `after` has ended, and record that in each run's ledger."""
        for number, one in enumerate(self._members):
            (self.folder / str(number)).symlink_to(one.run_dir.path)
        calls = [(one.run_dir.jobs, (str(one.run_dir.path), one.attempt)) for one in self._members]
        staged = staged_environment(self._members[0].run)
        said = environment_fields(staged)
        tasks = submit_attempts(self._task(after, staged), calls)
        self.job_id = str(tasks[0].job_id).partition("_")[0]
        return [
            record_submission(one.run_dir, one.attempt, one.run, task, one.fields(self._sweep.source) | said)
            for one, task in zip(self._members, tasks, strict=True)
        ]

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
            template="train.sbatch",
            code=first.run_dir.code,
            run=SupervisedRun(
                folder=str(self.folder),
                attempt=first.attempt,
                lead_s=signal_lead(first.run_dir, first.run),
                snapshot=first.snapshot,
            ),
            seen=tuple(dict.fromkeys(place for one in self._members for place in folders_of(one.run_dir, one.run))),
            staged=staged,
            array=len(self._members),
            at_once=self._sweep.at_once,
            after_any=after,
        )


def _arrays(made: Sequence[MadeRun]) -> Iterator[Sequence[MadeRun]]:
    """Runs that one script does for, no more together than an array takes."""
    for members in _alike(made, lambda one: f"{one.run.runs} {one.snapshot} {one.run.cluster.model_dump_json()}"):
        size = tasks_per_array(members[0].run.cluster)
        for start in range(0, len(members), size):
            yield members[start : start + size]


def _alike(items: Sequence[Item], key: Callable[[Item], str]) -> list[list[Item]]:
    """Items with the same key, in order."""
    return [list(group) for _, group in groupby(sorted(items, key=key), key=key)]
