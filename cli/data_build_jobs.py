"""`trainwright data build --cluster PROFILE`: an array of jobs tokenizes, a job after it puts the store together."""

import argparse
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import emit
from .progress import StageProgress

if TYPE_CHECKING:
    from ..config.cluster import ClusterConfig
    from ..storage.building.build import BuildOptions, BuildResult
    from ..storage.building.workspace import Workspace

_TASKS = 16
_FILES_EVERY_S = 1.0
_SLURM_EVERY_S = 5.0
_MODULE = "trainwright.storage.building.array"


def build_on_cluster(arguments: argparse.Namespace, options: "BuildOptions") -> int:
    """Submit what is left to do, or find that jobs are at it already; with --wait follow them to the end."""
    from ..storage.building.build_folder import building_folder
    from ..storage.building.workspace import Workspace

    options.check()
    space = Workspace(building_folder(Path(os.path.abspath(arguments.store))))
    jobs = living_jobs(space)
    if jobs is None:
        jobs = _submit(arguments, options, space)
    else:
        _check_same(arguments, options, space, jobs)
    record = {"store": str(arguments.store), "job_ids": jobs["job_ids"]}
    if not arguments.wait:
        emit(arguments, record, _how_to_go_on(arguments.store, jobs))
        return 0
    print(_how_to_go_on(arguments.store, jobs), file=sys.stderr, flush=True)
    result = _follow(arguments.store, space, jobs)
    from .data_build import report

    report(arguments, options, result)
    return 0


def refuse_living_jobs(store: Path) -> None:
    """Raises UserError if jobs of a cluster are building the store."""
    from ..config.errors import UserError
    from ..storage.building.build_folder import building_folder
    from ..storage.building.workspace import Workspace

    jobs = living_jobs(Workspace(building_folder(store)))
    if jobs is not None:
        names = " and ".join(jobs["job_ids"])
        remedy = f"follow them with --cluster {jobs['cluster']['profile']} --wait, or scancel them first"
        raise UserError(f"STORE {store}", f"jobs {names} are building it", remedy)


def living_jobs(space: "Workspace") -> dict[str, Any] | None:
    """The jobs that were submitted to build a store, if any waits or runs.

    Raises UserError if Slurm does not say: to build beside them would do all twice.
    """
    from ..config.cluster import ClusterConfig
    from ..config.errors import UserError
    from ..launchers.slurm import Slurm, SlurmUnreachable
    from ..storage.building.workspace import read_record

    jobs = read_record(space.jobs)
    if jobs is None:
        return None
    try:
        alive = Slurm(ClusterConfig.model_validate(jobs["cluster"])).are_alive(jobs["job_ids"])
    except SlurmUnreachable as error:
        remedy = f"try again, or remove {space.jobs} if they are gone for good"
        raise UserError(f"jobs {' and '.join(jobs['job_ids'])}", f"Slurm does not answer ({error})", remedy) from None
    return jobs if alive else None


def _check_same(
    arguments: argparse.Namespace, options: "BuildOptions", space: "Workspace", jobs: dict[str, Any]
) -> None:
    from ..config.errors import UserError
    from ..storage.building.plan import difference, read_plan, request_for
    from ..storage.building.sources import open_sources

    plan = read_plan(space)
    inputs = open_sources(arguments.sources, options.selection, options.format, options.field)
    reason = difference(plan.request, request_for(arguments.sources, inputs, options)) if plan else None
    if reason is not None:
        names = " and ".join(jobs["job_ids"])
        problem = f"jobs {names} are building it otherwise: {reason}"
        raise UserError(f"STORE {arguments.store}", problem, "wait for them, or scancel them first")


def _submit(arguments: argparse.Namespace, options: "BuildOptions", space: "Workspace") -> dict[str, Any]:
    from ..config.errors import UserError
    from ..config.loading import load_cluster
    from ..launchers.slurm import Slurm
    from ..storage.building.build import plan_build
    from ..storage.building.workspace import write_record

    profile = load_cluster(arguments.cluster)
    if profile.scheduler != "slurm":
        problem = f"{arguments.cluster}, whose scheduler is {profile.scheduler}"
        raise UserError("--cluster", problem, "leave it out to build here, or name a profile with Slurm")
    Slurm(profile).check()
    one = {"nodes": 1, "ranks_per_node": 1, "gpus_per_node": 0}
    cluster = type(profile).model_validate({**profile.model_dump(), **one})
    store = Path(os.path.abspath(arguments.store))
    with StageProgress() as line, plan_build(arguments.sources, store, options, (line.show, line.say)) as missing:
        for folder in (space.jobs_folder, space.errors):
            folder.mkdir(exist_ok=True)
        for old in space.errors.iterdir():
            old.unlink()
        tasks = min(options.workers or _TASKS, missing)
        jobs = {"cluster": cluster.model_dump(mode="json"), "job_ids": _submit_jobs(cluster, space, store, tasks)}
        write_record(space.jobs, jobs)
    return jobs


def _submit_jobs(cluster: "ClusterConfig", space: "Workspace", store: Path, tasks: int) -> list[str]:
    from ..launchers.job import TaskSpec, run_module, submit_task

    name, job_ids = f"build-{_word(store.name)}", []
    first = TaskSpec(
        name=name,
        title=f"Tokenizes parts of {store.name}.",
        function=run_module,
        arguments=(_MODULE, "parts", str(space.folder), str(tasks)),
        cluster=cluster,
        directory=Path.cwd(),
        folder=space.jobs_folder / "parts",
        logs=space.jobs_folder / "logs",
        array=tasks,
    )
    if tasks:
        job_ids.append(str(submit_task(first).job_id))
    last = replace(
        first,
        name=f"{name}-assemble",
        title=f"Puts {store.name} together.",
        arguments=(_MODULE, "assemble", str(space.folder), str(store)),
        folder=space.jobs_folder / "assemble",
        logs=space.jobs_folder / "logs-assemble",
        array=0,
        after=tuple(job_ids),
    )
    return [*job_ids, str(submit_task(last).job_id)]


def _follow(store: Path, space: "Workspace", jobs: dict[str, Any]) -> "BuildResult":
    """Until the store is there. Raises what stopped a job, or UserError where nobody wrote it down."""
    from ..config.cluster import ClusterConfig
    from ..config.errors import UserError
    from ..launchers.slurm import Slurm, SlurmUnreachable
    from ..storage.building.array import parts_done, recorded_error

    slurm = Slurm(ClusterConfig.model_validate(jobs["cluster"]))
    alive, asked = True, 0.0
    try:
        with StageProgress() as line:
            while alive:
                line.show("encode", *parts_done(space))
                if time.monotonic() - asked > _SLURM_EVERY_S:
                    with suppress(SlurmUnreachable):  # it is asked again
                        alive = slurm.are_alive(jobs["job_ids"])
                    asked = time.monotonic()
                time.sleep(_FILES_EVERY_S)
    except KeyboardInterrupt:
        print("the jobs go on", file=sys.stderr)
        raise
    if (store / "zarr.json").exists():
        return _result(store, space)
    error = recorded_error(space)
    if error is not None:
        raise error
    names = " and ".join(jobs["job_ids"])
    problem = f"jobs {names} ended before it was whole; logs are in {space.jobs_folder}"
    raise UserError(f"STORE {store}", problem, "the same command goes on where they were")


def _result(store: Path, space: "Workspace") -> "BuildResult":
    from ..storage.building.build import BuildResult
    from ..storage.building.build_folder import discard
    from ..storage.building.workspace import read_record
    from ..storage.tokens.store import read_info

    record = read_record(space.result) or {"skipped": 0, "trained": False}
    discard(space.folder)
    return BuildResult(read_info(store), **record)


def _how_to_go_on(store: Path, jobs: dict[str, Any]) -> str:
    *parts, last = jobs["job_ids"]
    what = f"job {parts[0]} tokenizes and job {last} then" if parts else f"job {last}"
    return f"{store}: {what} puts it together; the same command with --wait follows, or goes on after scancel"


def _word(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)
