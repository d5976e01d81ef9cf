"""What nodes, other users and the controller do to a run, on a Slurm of four nodes, as sites configure it.

Whole only in `make test-matrix`: a case takes a minute or two, most of it waiting for Slurm.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainwright.launchers.dev_cluster import faults
from trainwright.launchers.dev_cluster.names import ClusterNames
from trainwright.launchers.dev_cluster.settings import ClusterSettings
from trainwright.launchers.processes import wait_until
from trainwright.tracking.recorder import read_attempts

from .faulty_runs import ToyRun, curve, repeated
from .real_runs import WHOLE
from .sites import TWO_NODES, Site, cut_off, killed, open_site, verdict_on

if TYPE_CHECKING:
    from .conftest import User

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.ranks,
    pytest.mark.skipif(not WHOLE, reason="takes half an hour: make test-matrix"),
]
_SITES = [  # Slurm's default KillWait is 30 s
    ClusterSettings(
        preemption=True,
        user_signal=signal,
        grace_s=grace,
        slurmd_timeout_s=15,
        job_requeue=requeue,
        kill_wait_s=kill_wait,
    )
    for signal, grace, requeue, kill_wait in (
        (False, 0, True, 30),
        (True, 0, False, 10),
        (False, 30, False, 30),
        (True, 30, True, 10),
    )
]


Fault = Callable[[ClusterNames, str], AbstractContextManager[None]]
_LOST: list[tuple[Fault, int]] = [(killed, 1), (cut_off, 1), (killed, 0)]


@pytest.fixture(scope="module", params=_SITES, ids=lambda site: f"signal={site.user_signal},grace={site.grace_s}")
def site(
    request: pytest.FixtureRequest, ordinary_user: "User", small_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    with open_site(request.param, ordinary_user, small_store, tmp_path_factory) as site:
        yield site


def _at_fifty(site: Site) -> ToyRun:
    """A run that waits after its fiftieth step."""
    run = site.run()
    run.reach(50)
    return run


@pytest.fixture(scope="module")
def reference(site: Site) -> dict[int, float]:
    """Losses of a run that nothing befell."""
    run = _at_fifty(site)
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
    run = _at_fifty(site)
    script = ["sbatch", "--partition=urgent", "--nodes=4", "--exclusive", "--wrap=sleep 5"]
    run.slurm(*script)
    assert wait_until(lambda: bool(run.events("stopping")) or "got SIG" in run.run.batch_log(1).read_text(), 60)
    run.release()
    _check(run, reference, ["preemption"], lost=False)


@pytest.mark.parametrize(
    ("fault", "rank"), [(killed, 1), (cut_off, 1), (killed, 0)], ids=["dies", "cut off", "batch host"]
)
def test_a_node_that_is_lost(fault: Fault, rank: int, site: Site, reference: dict[int, float]) -> None:
    run = _at_fifty(site)
    lost = run.hosts(1)[rank]
    with fault(site.names, lost):
        assert wait_until(lambda: run.attempts() > 1, 300, every_s=0.5), run.explain()
        run.release()
        _check(run, reference, ["node failure"], lost=True)
        assert lost not in run.hosts(2).values()
    verdict = verdict_on(site.names, lost)
    first_step = read_attempts(run.run)[2][0]["time"]
    model_s = first_step - max(event.time for event in run.events("start") if event.attempt == 2)
    taken = first_step - verdict
    print(f"{taken:.1f} s from Slurm's verdict to the first new step, {model_s:.1f} s of them model start")
    assert taken - model_s <= 30


def test_a_controller_that_is_away_for_a_while(site: Site, reference: dict[int, float]) -> None:
    run = _at_fifty(site)
    faults.restart_controller(site.names, away_s=10)
    assert run.status()["state"] == "running"
    run.release()
    now = run.finish()
    assert now["state"] == "finished", run.explain()
    assert run.attempts() == 1
    assert curve(run.run) == reference


def test_the_time_limit(site: Site, reference: dict[int, float]) -> None:
    run = site.project.submit(*TWO_NODES, "cluster.time_limit=00:02:00", step_s=0.5)
    run.release()
    now = run.finish(timeout_s=600)
    assert now["state"] == "finished", run.explain()
    assert set(run.causes()) == {"time limit", "finished"}
    assert repeated(run.run) == []
    assert curve(run.run) == reference


def test_a_hang_until_the_time_limit(site: Site, reference: dict[int, float]) -> None:
    run = site.project.submit(*TWO_NODES, "cluster.time_limit=00:02:00")
    run.reach(50)
    run.fault(1, "hang")
    run.release()
    _check(run, reference, ["time limit"], lost=True)
