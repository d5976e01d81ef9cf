"""What nodes, other users and the controller do to a run, on a Slurm of four nodes, as sites configure it.

Whole only in `make test-matrix`: a case takes a minute or two, most of it waiting for Slurm.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainwright.launchers import dev_cluster
from trainwright.launchers.dev_cluster import faults
from trainwright.launchers.dev_cluster.names import ClusterNames
from trainwright.launchers.dev_cluster.settings import ClusterSettings
from trainwright.launchers.processes import wait_until

from .faulty_runs import ToyProject, ToyRun, curve, repeated, toy_files
from .real_runs import WHOLE

if TYPE_CHECKING:
    from .conftest import User

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.ranks,
    pytest.mark.skipif(not WHOLE, reason="takes half an hour: make test-matrix"),
]
_SITES = [
    ClusterSettings(preemption=True, user_signal=signal, grace_s=grace, slurmd_timeout_s=15, job_requeue=requeue)
    for signal, grace, requeue in ((False, 0, True), (True, 0, False), (False, 30, False), (True, 30, True))
]


Fault = Callable[[ClusterNames, str], AbstractContextManager[None]]


@dataclass
class Site:
    """A cluster and a project of one of its users."""

    names: ClusterNames
    project: ToyProject

    def run(self) -> ToyRun:
        """A run over two nodes that waits after its fiftieth step."""
        (self.project.folder / "faults" / "hold").touch()
        run = self.project.submit("cluster.nodes=2", "cluster.ranks_per_node=1")
        run.reach(50)
        return run


@pytest.fixture(scope="module", params=_SITES, ids=lambda site: f"signal={site.user_signal},grace={site.grace_s}")
def site(
    request: pytest.FixtureRequest, ordinary_user: "User", small_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = Path("/tmp") / f"trainwright-test-site-{tmp_path_factory.mktemp('site').name}"
    files = toy_files(tmp_path_factory.mktemp("toy"), small_store)
    patch = pytest.MonkeyPatch()
    try:
        dev_cluster.up(folder, num_nodes=4, settings=request.param)
        patch.setenv("TRAINWRIGHT_DEV_CLUSTER", str(folder))
        yield Site(faults.names_of(folder), ToyProject.make(ordinary_user, files, folder))
    finally:
        patch.undo()
        dev_cluster.down(folder)


@pytest.fixture(scope="module")
def reference(site: Site) -> dict[int, float]:
    """Losses of a run that nothing befell."""
    run = site.run()
    run.release()
    assert run.finish()["state"] == "finished", run.explain()
    return curve(run.run)


def _check(run: ToyRun, reference: dict[int, float], causes: list[str], lost: bool) -> None:
    now = run.finish(timeout_s=400)
    assert now["state"] == "finished", run.explain()
    assert run.causes() == [*causes, "finished"], run.explain()
    assert curve(run.run) == reference, "not the same losses, bitwise"
    if lost:
        assert [event.fields["step"] for event in run.events("commit") if event.attempt == 1] == [40]
    else:
        assert repeated(run.run) == []


def test_preemption(site: Site, reference: dict[int, float]) -> None:
    run = site.run()
    script = ["sbatch", "--partition=urgent", "--nodes=4", "--exclusive", "--wrap=sleep 5"]
    run.slurm(*script)
    assert wait_until(lambda: bool(run.events("stopping")) or "got SIG" in run.run.batch_log(1).read_text(), 60)
    run.release()
    _check(run, reference, ["preemption"], lost=False)


@contextmanager
def _kill(names: ClusterNames, node: str) -> Iterator[None]:
    faults.kill_node(names, node)
    try:
        yield
    finally:
        faults.revive_node(names, node)


@contextmanager
def _cut(names: ClusterNames, node: str) -> Iterator[None]:
    faults.cut(names, node)
    try:
        yield
    finally:
        faults.mend(names, node)


@pytest.mark.parametrize(("fault", "rank"), [(_kill, 1), (_cut, 1), (_kill, 0)], ids=["dies", "cut off", "batch host"])
def test_a_node_that_is_lost(fault: Fault, rank: int, site: Site, reference: dict[int, float]) -> None:
    run = site.run()
    lost = run.hosts(1)[rank]
    with fault(site.names, lost):
        assert wait_until(lambda: run.attempts() > 1, 300, every_s=0.5), run.explain()
        run.release()
        _check(run, reference, ["node failure"], lost=True)
        assert lost not in run.hosts(2).values()


def test_a_controller_that_is_away_for_a_while(site: Site, reference: dict[int, float]) -> None:
    run = site.run()
    faults.restart_controller(site.names, away_s=10)
    assert run.status()["state"] == "running"
    run.release()
    now = run.finish()
    assert now["state"] == "finished", run.explain()
    assert run.attempts() == 1
    assert curve(run.run) == reference


def test_the_time_limit(site: Site, reference: dict[int, float]) -> None:
    run = site.project.submit("cluster.nodes=2", "cluster.ranks_per_node=1", "cluster.time_limit=00:02:00", step_s=0.5)
    run.release()
    now = run.finish(timeout_s=600)
    assert now["state"] == "finished", run.explain()
    assert set(run.causes()) == {"time limit", "finished"}
    assert repeated(run.run) == []
    assert curve(run.run) == reference


def test_a_hang_until_the_time_limit(site: Site, reference: dict[int, float]) -> None:
    run = site.project.submit("cluster.nodes=2", "cluster.ranks_per_node=1", "cluster.time_limit=00:02:00")
    run.reach(50)
    run.fault(1, "hang")
    run.release()
    _check(run, reference, ["time limit"], lost=True)
