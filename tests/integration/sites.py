"""A Slurm of four nodes as a site configures it, with a project of one of its users, and what befalls its nodes."""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainwright.config.rundir import RunDir
from trainwright.launchers import dev_cluster
from trainwright.launchers.dev_cluster import faults
from trainwright.launchers.dev_cluster.names import ClusterNames
from trainwright.launchers.dev_cluster.settings import ClusterSettings

from .faulty_runs import ToyProject, ToyRun, toy_files

if TYPE_CHECKING:
    from .conftest import Done, User

_OF_ENGINE = {
    "toy": ("cluster.ranks_per_node=1",),
    "megatron": ("cluster.ranks_per_node=2", "parallelism.tensor=2", "parallelism.pipeline=2"),
}
_Befall = Callable[[ClusterNames, str], None]


@dataclass
class Site:
    """A cluster and a project of one of its users."""

    names: ClusterNames
    project: ToyProject
    engine: str
    """What computes there: toy, or megatron."""

    def run(self, *overrides: str) -> ToyRun:
        """A run over two nodes whose ranks wait after each fiftieth step of an attempt until they are released."""
        (self.project.folder / "faults" / "hold").touch()
        return self.project.submit("cluster.nodes=2", *_OF_ENGINE[self.engine], *overrides)

    def sweep(self, *words: str) -> "Done":
        """`trainwright sweep` of runs on one node each, of one rank unless the words say more."""
        folder = self.project.folder
        variables = {"TOY_FAULTS": str(folder / "faults"), "TOY_STEP_S": "0.02", "TOY_API_KEY": "of-this-test"}
        fixed = (
            f"cluster.python={folder / 'python'}",
            "cluster.nodes=1",
            "cluster.ranks_per_node=1",
            "cluster.environment=[TOY_FAULTS,TOY_STEP_S,TOY_API_KEY]",
        )
        trainwright = self.project.user.trainwright
        return trainwright("sweep", folder / "run.yaml", *fixed, *words, "--json", variables=variables)

    def swept(self, done: "Done") -> list[ToyRun]:
        """The runs of a sweep that was submitted, in its order."""
        assert done.returncode == 0, done.stderr
        records = json.loads(done.stdout)["runs"]
        return [ToyRun(self.project, RunDir(Path(record["run"])), record["job_id"]) for record in records]

    def states(self, runs: Sequence[ToyRun]) -> list[str]:
        """What one `trainwright status` says of all of them."""
        done = self.project.user.trainwright("status", *[run.run.path for run in runs], "--json")
        assert done.returncode == 0, done.stderr
        return [run["state"] for run in json.loads(done.stdout)["runs"]]


@contextmanager
def open_site(
    settings: ClusterSettings,
    user: "User",
    store: Path,
    tmp_path_factory: pytest.TempPathFactory,
    engine: str = "toy",
) -> Iterator[Site]:
    """Bring it up, with the user's profile `dev` leading there; take it down afterwards."""
    folder = Path("/tmp") / f"trainwright-test-site-{os.getpid()}-{tmp_path_factory.mktemp('site').name}"
    files = toy_files(tmp_path_factory.mktemp("toy"), store)
    patch = pytest.MonkeyPatch()
    try:
        dev_cluster.up(folder, num_nodes=4, settings=settings)
        patch.setenv("TRAINWRIGHT_DEV_CLUSTER", str(folder))
        yield Site(faults.names_of(folder), ToyProject.make(user, files, folder, engine), engine)
    finally:
        patch.undo()
        dev_cluster.down(folder)


def verdict_on(names: ClusterNames, node: str) -> float:
    """When Slurm's controller gave a node up, in seconds since the epoch."""
    log = (names.folder / "log" / "slurmctld.log").read_text()
    found = re.findall(rf"^\[(\S+)\] error: Nodes {re.escape(node)} not responding, setting DOWN", log, re.MULTILINE)
    return datetime.fromisoformat(found[-1]).timestamp()


def killed(names: ClusterNames, node: str) -> AbstractContextManager[None]:
    """Its daemons are dead meanwhile."""
    return _meanwhile(faults.kill_node, faults.revive_node, names, node)


def cut_off(names: ClusterNames, node: str) -> AbstractContextManager[None]:
    """Its cable is out meanwhile."""
    return _meanwhile(faults.cut, faults.mend, names, node)


@contextmanager
def _meanwhile(befall: _Befall, undo: _Befall, names: ClusterNames, node: str) -> Iterator[None]:
    befall(names, node)
    try:
        yield
    finally:
        undo(names, node)
