"""The faults of the other files around megatron-core itself, four ranks at TP2 x PP2 on a Slurm of four nodes.

Only in `make test-matrix`: each case starts megatron-core twice.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainwright.launchers.dev_cluster import faults
from trainwright.launchers.dev_cluster.settings import ClusterSettings
from trainwright.launchers.processes import wait_until

from .befall import kill_a_rank, signal_ranks, signal_script
from .faulty_runs import ToyRun, curve, repeated
from .real_runs import WHOLE
from .sites import Site, cut_off, killed, open_site

if TYPE_CHECKING:
    from .conftest import User

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.ranks,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not WHOLE, reason="starts megatron-core 30 times: make test-matrix"),
]
_RUN = (
    "cluster.nodes=2",
    "cluster.ranks_per_node=2",
    "parallelism.tensor=2",
    "parallelism.pipeline=2",
    "train.steps=60",
    "checkpoint.every_steps=20",
    "restarts.hang_after_s=60",
)
_LAST = 40
"""Step of the last checkpoint before the fault."""


@dataclass(frozen=True)
class Cell:
    """What befalls a run that waits after its fiftieth step, and how its first attempt must end."""

    fault: Callable[[Site, ToyRun], None]
    cause: str | None
    """None: it does not end."""
    lost: bool = True
    """Steps since the last checkpoint are done again."""
    overrides: tuple[str, ...] = ()


def _order(words: str) -> Callable[[Site, ToyRun], None]:
    return lambda site, run: run.fault(1, words)


def _preempt(site: Site, run: ToyRun) -> None:
    run.slurm("sbatch", "--partition=urgent", "--nodes=4", "--exclusive", "--wrap=sleep 5")
    assert wait_until(lambda: bool(run.events("stopping")) or "got SIG" in run.run.batch_log(1).read_text(), 60)


def _time_limit(site: Site, run: ToyRun) -> None:
    assert wait_until(lambda: "got SIG" in run.run.batch_log(1).read_text(), 240), run.explain()


def _lose(how: Callable[..., object], rank: int) -> Callable[[Site, ToyRun], None]:
    def befall(site: Site, run: ToyRun) -> None:
        with how(site.names, run.hosts(1)[rank]):  # type: ignore[attr-defined]
            assert wait_until(lambda: run.attempts() > 1, 400, every_s=0.5), run.explain()

    return befall


def _controller(site: Site, run: ToyRun) -> None:
    faults.restart_controller(site.names, away_s=10)
    assert run.status()["state"] == "running"


CELLS = {
    "signal to the script": Cell(lambda site, run: signal_script(run), "asked", lost=False),
    "signal to the ranks": Cell(lambda site, run: signal_ranks(run), "asked", lost=False),
    "preemption": Cell(_preempt, "preemption", lost=False),
    "time limit": Cell(_time_limit, "time limit", lost=False, overrides=("cluster.time_limit=00:02:00",)),
    "killed rank": Cell(lambda site, run: kill_a_rank(run), "crash"),
    "killed in a save": Cell(_order("kill-in-save"), "crash"),
    "unhealthy node": Cell(_order("exit 86"), "unhealthy node"),
    "full disk": Cell(_order("full"), "full disk"),
    "hang": Cell(_order("hang"), "hang"),
    "dead node": Cell(_lose(killed, 2), "node failure"),
    "dead batch host": Cell(_lose(killed, 0), "node failure"),
    "node cut off": Cell(_lose(cut_off, 2), "node failure"),
    "controller away": Cell(_controller, None, lost=False),
}


@pytest.fixture(scope="module", params=[(True, 30), (False, 0)], ids=["signal and grace", "neither"])
def site(
    request: pytest.FixtureRequest, ordinary_user: "User", small_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    signal, grace_s = request.param
    settings = ClusterSettings(
        preemption=True, user_signal=signal, grace_s=grace_s, slurmd_timeout_s=15, job_requeue=signal
    )
    with open_site(settings, ordinary_user, small_store, tmp_path_factory, engine="megatron") as site:
        yield site


@pytest.fixture(scope="module")
def reference(site: Site) -> dict[int, float]:
    """Losses of a run that nothing befell."""
    run = site.run(*_RUN)
    run.release()
    assert run.finish(timeout_s=400)["state"] == "finished", run.explain()
    return curve(run.run)


@pytest.mark.parametrize("name", CELLS)
def test_cell(name: str, site: Site, reference: dict[int, float]) -> None:
    cell = CELLS[name]
    run = site.run(*_RUN, *cell.overrides)
    run.reach(50, timeout_s=300)
    cell.fault(site, run)
    run.release()
    now = run.finish(timeout_s=500)
    assert now["state"] == "finished", run.explain()
    assert run.causes() == [*([cell.cause] if cell.cause else []), "finished"], run.explain()
    assert curve(run.run) == reference, "not the same losses, bitwise"
    commits = [event.fields["step"] for event in run.events("commit") if event.attempt == 1]
    if cell.lost:
        assert commits == [20, _LAST], "no more than the checkpoints from before the fault"
    elif cell.cause:
        [stop] = [event.fields["step"] for event in run.events("stopping") if event.writer == "rank-00000"]
        assert commits == sorted({20, _LAST, stop}), "one more checkpoint, of the step at which all stopped"
        assert repeated(run.run) == []
    print(f"{name}: {run.attempts()} attempts, {len(run.events('commit'))} checkpoints")
