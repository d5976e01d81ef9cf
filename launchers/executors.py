"""Submitit's executors, with our script on Slurm and our controller on this machine."""

import json
import os
import shlex
import subprocess
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import DelayedSubmission
from submitit.local.local import LocalJob

from .environment import is_secret, passed_values
from .keys import drop_keys, write_keys
from .script import ScriptFacts, render
from .slurm import Slurm


class TemplateSlurmExecutor(submitit.SlurmExecutor):  # type: ignore[misc]
    """Submits one of our templates; everything else (pickles, results, job objects) is Submitit's."""

    def __init__(self, folder: Path, template: str, facts: ScriptFacts) -> None:
        super().__init__(folder=folder, python=facts.python)
        self._template, self._facts = template, facts
        self._key_folders = [folder]
        self.parameters.update(nodes=facts.cluster.nodes, ntasks_per_node=facts.cluster.ranks_per_node)

    @property
    def _submitit_command_str(self) -> str:
        return self._facts.command

    def submit_array(self, function: Callable[..., object], *arguments: object) -> "submitit.SlurmJob[Any]":
        """Submit facts.array tasks that all make the same call; the job of the first."""
        return self.submit_calls(function, [(self.folder, arguments)] * self._facts.array)[0]

    def submit_calls(
        self, function: Callable[..., object], calls: Sequence[tuple[Path, tuple[object, ...]]], per_task: int = 1
    ) -> list["submitit.SlurmJob[Any]"]:
        """Submit facts.array tasks; each makes the next `per_task` calls. Beside a call is the folder for its files."""
        self._key_folders = list(dict.fromkeys(folder for folder, _ in calls))
        job = self._submit_command("")
        ranks = list(range(self._num_tasks() // per_task))
        try:
            tasks = [
                self.job_class(folder, f"{job.job_id}_{number // per_task}", ranks)
                for number, (folder, _) in enumerate(calls)
            ]
            for task, (_, arguments) in zip(tasks, calls, strict=True):  # they wait for it, as Submitit's own do
                call = DelayedSubmission(function, *arguments)
                call.set_timeout(self.parameters.get("time", 5), self.max_num_timeout)
                beside = task.paths.submitted_pickle.with_suffix(".tmp")
                call.dump(beside)
                beside.rename(task.paths.submitted_pickle)
        except BaseException:
            Slurm(self._facts.cluster).cancel(job.job_id)
            raise
        return tasks

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return render(self._template, self._facts)

    def _submit_command(self, command: str) -> "submitit.SlurmJob[Any]":
        """As Submitit's, but sbatch sees the allowed variables alone: those of this shell would win over the script."""
        script = Path(self.folder) / f".submission_file_{uuid.uuid4().hex}.sh"
        script.write_text(self._make_submission_file_text(command, ""), encoding="utf-8")
        try:
            passed = passed_values(self._facts.cluster, self._facts.environment)
            for folder in self._key_folders:
                write_keys(folder, {name: value for name, value in passed.items() if is_secret(name)})
            allowed = {name: value for name, value in passed.items() if not is_secret(name)}
            job_id = Slurm(self._facts.cluster).sbatch(script, allowed)
        except BaseException:
            for folder in self._key_folders:
                drop_keys(folder)
            script.unlink()
            raise
        job = self.job_class(folder=self.folder, job_id=job_id, tasks=list(range(self._num_tasks())))
        job.paths.move_temporary_file(script, "submission_file")
        return job


class DetachedLocalExecutor(submitit.LocalExecutor):  # type: ignore[misc]
    """Starts the ranks on this machine under our controller, in a session of their own."""

    def __init__(self, folder: Path, facts: ScriptFacts) -> None:
        super().__init__(folder=folder, python=facts.python)
        self._facts = facts
        self.parameters.update(tasks_per_node=facts.cluster.ranks_per_node)

    def _submit_command(self, command: str) -> "LocalJob[Any]":
        facts = self._facts
        order = {
            "folder": str(self.folder),
            "logs": str(facts.logs),
            "tasks": facts.cluster.ranks_per_node,
            "imports": facts.imports,
            "on_end": _end_command(facts),
            "time_limit": facts.cluster.time_limit,
        }
        python = [*shlex.split(facts.python), "-u"]
        controller = [*python, "-m", "trainwright.launchers.local_controller", json.dumps(order)]
        with (facts.logs / "batch.log").open("ab") as log:
            process = subprocess.Popen(
                controller,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=facts.directory,
                env=self._environment(),
                start_new_session=True,
            )
        tasks = list(range(self._num_tasks()))
        return LocalJob(folder=self.folder, job_id=str(process.pid), process=process, tasks=tasks)

    def _environment(self) -> dict[str, str]:
        facts = self._facts
        values = {**passed_values(facts.cluster, facts.environment), "PYTHONSAFEPATH": "1"}
        if facts.code:
            values["PYTHONPATH"] = str(facts.code)
        values["CUDA_VISIBLE_DEVICES"] = _devices(facts.cluster.gpus_per_node)
        if not facts.cluster.gpus_per_node:
            values["OMP_NUM_THREADS"] = str(facts.cluster.cpus_per_rank)
        values |= {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_NODEID": "0", "SUBMITIT_LOCAL_JOB_NUM_NODES": "1"}
        values["SUBMITIT_LOCAL_NTASKS"] = str(facts.cluster.ranks_per_node)
        return values


def _end_command(facts: ScriptFacts) -> list[str]:
    if facts.run is None:
        return []
    supervisor = [*shlex.split(facts.python), "-m", "trainwright.launchers.supervisor"]
    return [*supervisor, "end", facts.run.folder, str(facts.run.attempt)]


def _devices(count: int) -> str:
    """The first `count` devices that this shell may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(number) for number in range(count)]
    return ",".join(names[:count])
