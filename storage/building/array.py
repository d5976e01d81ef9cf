"""A build or an append as jobs of a cluster: each task of an array makes parts, a job after them does the rest.

    python -m trainwright.storage.building.array parts FOLDER COUNT     # one task of COUNT, by $SLURM_ARRAY_TASK_ID
    python -m trainwright.storage.building.array assemble FOLDER STORE

FOLDER is the building folder, which the one who submits has planned. What stops a job is written to FOLDER/errors.
"""

import json
import os
import sys
import traceback
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from ...config.errors import UserError
from .append import AppendResult, complete_append
from .assembly import Assembly
from .build import BuildResult, finish_build
from .build_folder import folder_beside
from .crew import Crew
from .parts import Part
from .plan import Plan, read_plan
from .site import pack_error, unpack_error
from .workspace import Workspace, read_record, write_record

_SHOWN = 20
# 1 and 2 as every command has them.
_OURS, _USERS = 1, 2


def make_own_parts(space: Workspace, task: int, tasks: int, workers: int) -> int:
    """Make the parts task, task + tasks, task + 2 tasks, ... that are missing; how many there were."""
    plan = _plan(space)
    with Crew(space, workers) as crew:
        assembly = Assembly(space, plan, crew, _printed)
        own = [number for number in assembly.missing_parts() if number % tasks == task]
        assembly.make_parts(own)
    return len(own)


def assemble(space: Workspace, store: Path, workers: int) -> None:
    """Do what is left, publish the store or its next generation, and leave result.json for the one who waits."""
    with folder_beside(store):
        result: AppendResult | BuildResult
        try:
            plan = _plan(space)
            if plan.origin is None:
                result = finish_build(space, store, plan, workers, _printed)
            else:
                result = complete_append(space, store, plan, workers, _printed)
        except UserError as error:  # inside, so that the folder stays, and with it what says why
            _record(space, "assemble", error)
            raise SystemExit(_USERS) from error
        facts = {name: value for name, value in asdict(result).items() if name != "info"}
        write_record(space.result, {"request": plan.request, "facts": facts})


def parts_done(space: Workspace) -> tuple[int, int]:
    """Bytes of sources that are tokenized, and of all; 0 of 0 when the store is published."""
    plan = read_plan(space)
    if plan is None:
        return 0, 0
    done = {int(path.stem) for path in (space.folder / "parts").glob("[0-9]*.json")}
    return _size(part for number, part in enumerate(plan.parts) if number in done), _size(plan.parts)


def recorded_error(space: Workspace) -> Exception | None:
    """What stopped a job, the first by its name; None if none wrote it down."""
    for path in sorted(space.errors.glob("*.json")):
        record = read_record(path)
        if record is not None:
            return unpack_error(record["error"])
    return None


def main(arguments: list[str]) -> int:
    """Do what the arguments say; 2 for a user's mistake, which is then on record."""
    what, folder, last = arguments
    space = Workspace(Path(folder))
    workers = int(os.environ.get("SLURM_CPUS_PER_TASK") or 1)
    task = int(os.environ.get("SLURM_ARRAY_TASK_ID") or 0)
    try:
        if what == "parts":
            print(f"task {task} made {make_own_parts(space, task, int(last), workers)} parts", flush=True)
        else:
            assemble(space, Path(last), workers)
    except Exception as error:
        traceback.print_exc()
        _record(space, f"{what}-{task:05}", error)
        return _USERS if isinstance(error, UserError) else _OURS
    return 0


def _plan(space: Workspace) -> Plan:
    plan = read_plan(space)
    if plan is None:
        raise UserError(str(space.plan), "is gone or damaged", "give the same `data build` again")
    return plan


def _record(space: Workspace, name: str, error: Exception) -> None:
    if space.errors.is_dir():
        write_record(space.errors / f"{name}.json", {"error": pack_error(error)})


def _size(parts: Iterable[Part]) -> int:
    return sum(each.size_bytes for each in parts)


def _printed(stage: str, done: int, total: int) -> None:
    """Progress in a job's log: about twenty lines a stage."""
    share = done * _SHOWN // max(1, total)
    if _Last.shown != (stage, share):
        _Last.shown = (stage, share)
        print(json.dumps({"stage": stage, "done": done, "total": total}), flush=True)


class _Last:
    shown = ("", -1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
