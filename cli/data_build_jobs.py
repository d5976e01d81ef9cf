"""`data build` and `data append` with --cluster PROFILE: an array of jobs tokenizes, a job after it does the rest."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import emit
from .progress import StageProgress

if TYPE_CHECKING:
    from ..config.cluster import ClusterConfig
    from ..storage.building.workspace import Workspace

_TASKS = 16
_FILES_EVERY_S = 1.0
_SLURM_EVERY_S = 5.0
_MODULE = "trainwright.storage.building.array"


@dataclass(frozen=True)
class Work:
    """What jobs are submitted for: a store, or more documents for one."""

    verb: str
    workers: int | None
    request: Callable[[], dict[str, Any]]
    """What is asked for now; see plan.request_for."""
    plan: Callable[[Path, Any], AbstractContextManager[int]]
    """Plans it for a store's absolute path, with its watchers, and says how many parts are missing."""
    report: Callable[[dict[str, Any]], None]
    """Says what was done, given the fields of a result but `info`."""


def do_on_cluster(arguments: argparse.Namespace, work: Work) -> int:
    """Submit what is left to do, or find that jobs are at it already; with --wait follow them to the end."""
    from ..storage.building.build_folder import building_folder, discard
    from ..storage.building.workspace import Workspace

    space = Workspace(building_folder(Path(os.path.abspath(arguments.store))))
    jobs = living_jobs(space)
    if jobs is not None:
        _check_same(arguments, work, space, jobs)
    else:
        done = _done_before(work, space)
        if done is not None:
            discard(space.folder)
            work.report(done)
            return 0
        jobs = _submit(arguments, work, space)
    record = {"store": str(arguments.store), "job_ids": jobs["job_ids"]}
    if not arguments.wait:
        emit(arguments, record, _how_to_go_on(arguments.store, jobs))
        return 0
    print(_how_to_go_on(arguments.store, jobs), file=sys.stderr, flush=True)
    facts = _follow(arguments.store, work, space, jobs)
    discard(space.folder)
    work.report(facts)
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


def _done_before(work: Work, space: "Workspace") -> dict[str, Any] | None:
    """What jobs did of an append that nobody waited for, if it is asked for again: it is not done twice."""
    from ..storage.building.workspace import read_record

    record = read_record(space.result)
    if work.verb != "append" or record is None or _change(record["request"], work) is not None:
        return None
    return dict(record["facts"])


def _change(then: dict[str, Any], work: Work) -> str | None:
    """Why what was asked for then is not what is asked for now. The store that is added to may have grown by it."""
    from ..storage.building.plan import difference

    origin = {"origin": then["origin"]} if "origin" in then else {}
    return difference(then, {**work.request(), **origin})


def _check_same(arguments: argparse.Namespace, work: Work, space: "Workspace", jobs: dict[str, Any]) -> None:
    from ..config.errors import UserError
    from ..storage.building.plan import read_plan

    plan = read_plan(space)
    reason = _change(plan.request, work) if plan else None
    if reason is not None:
        names = " and ".join(jobs["job_ids"])
        problem = f"jobs {names} are building it otherwise: {reason}"
        raise UserError(f"STORE {arguments.store}", problem, "wait for them, or scancel them first")


def _submit(arguments: argparse.Namespace, work: Work, space: "Workspace") -> dict[str, Any]:
    from ..config.errors import UserError
    from ..config.loading import load_cluster
    from ..launchers.slurm import Slurm
    from ..storage.building.workspace import write_record

    profile = load_cluster(arguments.cluster)
    if profile.scheduler != "slurm":
        problem = f"{arguments.cluster}, whose scheduler is {profile.scheduler}"
        raise UserError("--cluster", problem, "leave it out to build here, or name a profile with Slurm")
    Slurm(profile).check()
    one = {"nodes": 1, "ranks_per_node": 1, "gpus_per_node": 0}
    cluster = type(profile).model_validate({**profile.model_dump(), **one})
    store = Path(os.path.abspath(arguments.store))
    with StageProgress() as line, work.plan(store, (line.show, line.say)) as missing:
        for folder in (space.jobs_folder, space.errors):
            folder.mkdir(exist_ok=True)
        for old in space.errors.iterdir():
            old.unlink()
        space.result.unlink(missing_ok=True)
        tasks = min(work.workers or _TASKS, missing)
        job_ids = _submit_jobs(cluster, space, (work.verb, store), tasks)
        jobs = {"cluster": cluster.model_dump(mode="json"), "job_ids": job_ids}
        write_record(space.jobs, jobs)
    return jobs


def _submit_jobs(cluster: "ClusterConfig", space: "Workspace", what: tuple[str, Path], tasks: int) -> list[str]:
    from ..launchers.job import TaskSpec, run_module, submit_task

    verb, store = what
    name, job_ids = f"{verb}-{_word(store.name)}", []
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


def _follow(store: Path, work: Work, space: "Workspace", jobs: dict[str, Any]) -> dict[str, Any]:
    """Until all is done: the facts. Raises what stopped a job, or UserError where nobody wrote it down."""
    from ..config.cluster import ClusterConfig
    from ..config.errors import UserError
    from ..launchers.slurm import Slurm, SlurmUnreachable
    from ..storage.building.array import parts_done, recorded_error
    from ..storage.building.workspace import read_record

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
    record = read_record(space.result)
    if record is not None:
        return dict(record["facts"])
    if work.verb == "build" and (store / "zarr.json").exists():  # killed when all was published
        return {"skipped": 0, "trained": False}
    error = recorded_error(space)
    if error is not None:
        raise error
    names = " and ".join(jobs["job_ids"])
    problem = f"jobs {names} ended before it was whole; logs are in {space.jobs_folder}"
    raise UserError(f"STORE {store}", problem, "the same command goes on where they were")


def _how_to_go_on(store: Path, jobs: dict[str, Any]) -> str:
    *parts, last = jobs["job_ids"]
    what = f"job {parts[0]} tokenizes and job {last} then" if parts else f"job {last}"
    return f"{store}: {what} puts it together; the same command with --wait follows, or goes on after scancel"


def _word(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)
