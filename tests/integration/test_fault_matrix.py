"""Every fault on every kind of site: with the toy engine on all of them, with megatron-core at TP2 x PP2 on two.

Only in `make test-matrix`: a case takes half a minute to two, most of it waiting for Slurm.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainwright.launchers.dev_cluster.settings import ClusterSettings
from trainwright.tracking.recorder import read_attempts

from .befall import controller_away, kill_a_rank, lose_node, order, preempt, signal_ranks, signal_script, until_told
from .faulty_runs import ToyRun, curve, repeated
from .real_runs import WHOLE
from .sites import Site, cut_off, killed, open_site, verdict_on

if TYPE_CHECKING:
    from .conftest import User

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.ranks,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not WHOLE, reason="takes hours: make test-matrix"),
]
_RUN = (
    "train.steps=60",
    "checkpoint.every_steps=20",
    "restarts.hang_after_s=60",  # longer than Slurm takes to give up a node
)
# Slurm tells it up to a minute before the time that was asked for; until then it waits, and that is no hang.
_SHORT = ("cluster.time_limit=00:03:00", "restarts.hang_after_s=300")
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
    node: int | None = None
    """Of the job's two nodes the one that Slurm gives up."""
    overrides: tuple[str, ...] = ()


def _node(how: Callable[..., object], node: int) -> Cell:
    return Cell(lambda site, run: lose_node(site, run, how, _rank_of(run, node)), "node failure", node=node)


def _rank_of(run: ToyRun, node: int) -> int:
    """The first rank of a node."""
    return node * len(run.hosts(1)) // 2


CELLS = {
    "signal to the script": Cell(lambda site, run: signal_script(run), "asked", lost=False),
    "signal to the ranks": Cell(lambda site, run: signal_ranks(run), "asked", lost=False),
    "preemption": Cell(lambda site, run: preempt(run), "preemption", lost=False),
    "time limit": Cell(lambda site, run: until_told(run, 240), "time limit", lost=False, overrides=_SHORT),
    "hang until the time limit": Cell(order("hang"), "time limit", overrides=_SHORT),
    "killed rank": Cell(lambda site, run: kill_a_rank(run), "crash"),
    "killed in a save": Cell(order("kill-in-save"), "crash"),
    "unhealthy node": Cell(order("exit 86"), "unhealthy node"),
    "full disk": Cell(order("full"), "full disk"),
    "hang": Cell(order("hang"), "hang"),
    "dead node": _node(killed, 1),
    "dead batch host": _node(killed, 0),
    "node cut off": _node(cut_off, 1),
    "batch host cut off": _node(cut_off, 0),
    "controller away": Cell(lambda site, run: controller_away(site, 10), None, lost=False),
}
# User signal at preemption, grace time, accounts kept. Slurm's default KillWait is 30 s, JobRequeue 1.
_SITES = [("toy", *site) for site in product((True, False), (30, 0), (True, False))]
_SITES += [("megatron", True, 30, False), ("megatron", False, 0, True)]


def _name(site: tuple[str, bool, int, bool]) -> str:
    engine, signal, grace_s, accounts = site
    return f"{engine} {'told' if signal else 'untold'} grace{grace_s} {'accounts' if accounts else 'bare'}"


@pytest.fixture(scope="module", params=_SITES, ids=_name)
def site(
    request: pytest.FixtureRequest, ordinary_user: "User", small_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    engine, signal, grace_s, accounts = request.param
    settings = ClusterSettings(
        preemption=True,
        user_signal=signal,
        grace_s=grace_s,
        accounting="kept" if accounts else "none",
        slurmd_timeout_s=15,
        kill_wait_s=30 if accounts else 10,
        job_requeue=signal,
    )
    with open_site(settings, ordinary_user, small_store, tmp_path_factory, engine) as site:
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
    if cell.node is not None:
        _check_another_node(site, run, run.hosts(1)[_rank_of(run, cell.node)])


def _check_another_node(site: Site, run: ToyRun, lost: str) -> None:
    """It went on without the node, at most 30 s after Slurm's verdict on that, besides model start."""
    assert lost not in run.hosts(2).values()
    first_step = read_attempts(run.run)[2][0]["time"]
    model_s = first_step - max(event.time for event in run.events("start") if event.attempt == 2)
    taken = first_step - verdict_on(site.names, lost)
    print(f"{taken:.1f} s from Slurm's verdict to the first new step, {model_s:.1f} s of them model start")
    assert taken - model_s <= 30
