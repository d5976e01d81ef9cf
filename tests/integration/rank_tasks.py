"""Tasks that jobs of the tests run. Copied into a folder on the job's import path; also submits itself when run.

python rank_tasks.py FOLDER    (as an ordinary user: two nodes, two ranks each; prints what the ranks returned)
"""

import importlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from trainwright.config.cluster import ClusterConfig
from trainwright.config.profiles import load_profile
from trainwright.launchers.job import TaskSpec, submit_task
from trainwright.launchers.rendezvous import join, place_from
from trainwright.launchers.task import TaskEnded, take_signals_back


def all_reduce(handover: str, interface: str | None) -> dict[str, Any]:
    """Sum 1..world_size over gloo, and tell where this rank was and what it saw."""
    import torch
    import torch.distributed as dist

    place = place_from(os.environ)
    join(place, Path(handover), ClusterConfig(network_interface=interface))
    dist.init_process_group("gloo")
    number = torch.tensor([place.rank + 1])
    dist.all_reduce(number)
    dist.destroy_process_group()
    return {"rank": place.rank, "host": socket.gethostname(), "sum": int(number), "variables": dict(os.environ)}


def one_dies(how: str) -> None:
    """Rank 1 dies at once; the others would sleep for ten minutes."""
    take_signals_back()
    if place_from(os.environ).rank == 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise TaskEnded(86, "this node is unwell")
    time.sleep(600)


def tell_rank() -> int:
    """Print and return the rank."""
    rank = place_from(os.environ).rank
    print(f"this is rank {rank}", flush=True)
    return rank


def spec(folder: Path, cluster: ClusterConfig, function: Any, *arguments: object) -> TaskSpec:
    """A task of this module that keeps everything in `folder`."""
    return TaskSpec(
        name="test",
        title="A test",
        function=function,
        arguments=arguments,
        cluster=cluster,
        directory=folder,
        folder=folder / "jobs",
        logs=folder / "logs",
        code=Path(__file__).parent,
    )


def dev_place(**changes: Any) -> ClusterConfig:
    """The dev profile: two nodes, two ranks each, unless changed."""
    return ClusterConfig(**{"profile": "dev", **load_profile("dev", Path.cwd()), "nodes": 2, **changes})


if __name__ == "__main__":
    import submitit

    module = importlib.import_module("rank_tasks")  # so that the task is pickled by this module's name, not __main__'s

    place = Path(sys.argv[1])
    cluster = dev_place(environment=["PASSED_ON"])
    task = submit_task(module.spec(place, cluster, module.all_reduce, str(place / "port.json"), None))
    assert task.job_id is not None
    job = submitit.SlurmJob(folder=place / "jobs", job_id=task.job_id, tasks=[0, 1, 2, 3])
    print(json.dumps(job.results()))
