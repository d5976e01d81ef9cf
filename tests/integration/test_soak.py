"""Random faults, one after another, over long runs on a real Slurm: each is survived, and the end is bitwise the same.

Run by `make soak`, which keeps what is printed. $SOAK_SEED and $SOAK_CAMPAIGNS say which faults; each campaign is a run
of its own, drawn from the seed and its number alone, so that a soak goes on where it was stopped ($SOAK_FIRST).
$SOAK_ENGINE is toy, or megatron: four ranks at TP2 x PP2.
"""

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainwright.launchers.dev_cluster.settings import ClusterSettings
from trainwright.launchers.processes import wait_until

from .befall import controller_away, kill_a_rank, lose_node, take_all_nodes
from .conftest import CLI
from .faulty_runs import ToyRun, curve
from .sites import Site, cut_off, killed, open_site

if TYPE_CHECKING:
    from .conftest import User

FIRST, CAMPAIGNS = int(os.environ.get("SOAK_FIRST", "0")), int(os.environ.get("SOAK_CAMPAIGNS", "0"))
SEED = int(os.environ.get("SOAK_SEED", "0"))
ENGINE = os.environ.get("SOAK_ENGINE", "toy")
FAULTS = 10
"""Faults in a campaign."""
STEPS = 3000 if ENGINE == "toy" else 600
"""Ten faults take fewer; a step of the toy engine takes 0.05 s."""
_PATIENCE_S = 400.0
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.ranks,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not CAMPAIGNS, reason="takes an hour: make soak"),
]
_RUN = (
    f"train.steps={STEPS}",
    "checkpoint.every_steps=20",
    *(f"restarts.{cause}=1000" for cause in ("crashes", "nodes", "hangs", "without_progress")),
    "restarts.exclude_hours=0.01",
    "restarts.hang_after_s=60",  # longer than Slurm takes to give up a node
)
_SITE = ClusterSettings(preemption=True, slurmd_timeout_s=15, job_requeue=True)


def _ask(site: Site, run: ToyRun, rank: int) -> None:
    run.slurm("scancel", "--signal=USR2", "--batch", run.job_id)


KINDS: dict[str, tuple[Callable[[Site, ToyRun, int], None], str | None]] = {
    "asked": (_ask, "asked"),
    "killed rank": (lambda site, run, rank: kill_a_rank(run, rank), "crash"),
    "killed in a save": (lambda site, run, rank: run.fault(rank, "kill-in-save"), "crash"),
    "unhealthy node": (lambda site, run, rank: run.fault(rank, "exit 86"), "unhealthy node"),
    "hang": (lambda site, run, rank: run.fault(rank, "hang"), "hang"),
    "preemption": (lambda site, run, rank: take_all_nodes(run), "preemption"),
    "dead node": (lambda site, run, rank: lose_node(site, run, killed, rank), "node failure"),
    "node cut off": (lambda site, run, rank: lose_node(site, run, cut_off, rank), "node failure"),
    "controller away": (lambda site, run, rank: controller_away(site, 2), None),
}
"""Name -> what is done, and the cause that the ledger must name (None: nothing ends)."""


@pytest.fixture(scope="module")
def site(ordinary_user: "User", small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(_SITE, ordinary_user, small_store, tmp_path_factory, ENGINE) as site:
        yield site


@pytest.fixture(scope="module")
def reference(site: Site) -> dict[int, float]:
    """Losses of a run that nothing befell."""
    run = _start(site)
    assert run.finish(_PATIENCE_S)["state"] == "finished", run.explain()
    return curve(run.run)


@pytest.mark.parametrize("campaign", range(FIRST, FIRST + CAMPAIGNS))
def test_campaign(campaign: int, site: Site, reference: dict[int, float]) -> None:
    draw = random.Random(f"{SEED} {campaign}")
    kinds = [draw.choice([*KINDS]) for _ in range(FAULTS)]
    began = time.monotonic()
    run = _start(site)
    with ThreadPoolExecutor(1) as pool:  # on a login node: jobs whose batch host died are started at once
        watch = pool.submit(run.project.user.run, [*CLI, "watch", "--every", "2", run.run.path], None, 3600)
        causes = _befall(site, run, kinds, draw)
        assert run.finish(_PATIENCE_S)["state"] == "finished", run.explain()
        assert watch.result().returncode == 0, watch.result().stderr
    assert run.causes() == [*causes, "finished"], run.explain()
    assert curve(run.run) == reference, "not the same losses, bitwise"
    print(f"campaign {campaign}: {', '.join(kinds)}: {run.attempts()} attempts, {time.monotonic() - began:.0f} s")


def _befall(site: Site, run: ToyRun, kinds: Sequence[str], draw: random.Random) -> list[str]:
    """One fault after another, each at a random step of a new attempt; the causes that the ledger must name."""
    causes = []
    for kind in kinds:
        befall, cause = KINDS[kind]
        steps = draw.randint(1, 45)
        _wait_for(run, lambda steps=steps: _has_done(run, steps))
        before = run.attempts()
        time.sleep(draw.uniform(0, 0.1))
        befall(site, run, draw.randrange(2 if ENGINE == "toy" else 4))
        if cause is not None:
            causes.append(cause)
            _wait_for(run, lambda before=before: run.attempts() > before)
    return causes


def _start(site: Site) -> ToyRun:
    run = site.run(*_RUN)
    run.release()
    return run


def _has_done(run: ToyRun, steps: int) -> bool:
    """Whether the newest attempt has done so many steps."""
    attempt = run.attempts()
    return attempt > 0 and len(run.steps_of(attempt)) >= steps


def _wait_for(run: ToyRun, true: Callable[..., bool]) -> None:
    assert wait_until(true, _PATIENCE_S, every_s=0.2), run.explain()
