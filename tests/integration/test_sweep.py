"""A sweep on a real Slurm: arrays split to MaxArraySize, whose tasks are each a run that ends and goes on alone."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainwright.config.loading import load_frozen
from trainwright.launchers.dev_cluster.settings import ClusterSettings
from trainwright.launchers.processes import wait_until

from .sites import Site, open_site

if TYPE_CHECKING:
    from .conftest import User

pytestmark = [pytest.mark.slurm, pytest.mark.ranks]


@pytest.fixture(scope="module")
def site(ordinary_user: "User", small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(ClusterSettings(max_array_size=2), ordinary_user, small_store, tmp_path_factory) as opened:
        yield opened


def test_each_task_is_a_run_of_its_own(site: Site) -> None:
    """Two arrays of two, the second after the first. A rank of one task is killed, one that waits is cancelled."""
    done = site.sweep("train.steps=60", "train.optimizer.lr=1e-3,3e-4", "train.seed=1,2", "--at-once", "2")
    runs = site.swept(done)
    assert [run.run.name for run in runs] == [f"toy-lr{lr}-seed{seed}" for lr in ("1e-3", "3e-4") for seed in (1, 2)]
    arrays = [run.job_id.partition("_") for run in runs]
    assert [task for _, _, task in arrays] == ["0", "1", "0", "1"]
    assert arrays[0][0] == arrays[1][0] != arrays[2][0] == arrays[3][0]
    alone, hurt, later, unwanted = runs
    for run in (alone, hurt):
        run.reach(50)
    assert site.states(runs) == ["running", "running", "queued", "queued"], alone.explain()
    assert set(alone.hosts(1).values()) == set(hurt.hosts(1).values()), "both fit on one node"

    cancelled = site.project.user.trainwright("cancel", unwanted.run.path, "--json")
    assert json.loads(cancelled.stdout)["state"] == "cancelled", cancelled.stderr
    os.kill(hurt.pids(1)[0], signal.SIGKILL)
    assert wait_until(lambda: hurt.attempts() == 2, 120, every_s=0.2), hurt.explain()
    assert site.states([alone, later, unwanted]) == ["running", "queued", "cancelled"]

    alone.release()
    for run in (alone, hurt, later):
        assert run.finish()["state"] == "finished", run.explain()
    assert hurt.causes() == ["crash", "finished"], hurt.explain()
    assert alone.causes() == later.causes() == ["finished"], alone.explain()
    assert not unwanted.attempts()
    assert [load_frozen(run.run.run_yaml).train.seed for run in (alone, hurt, later)] == [1, 2, 1]
    assert alone.events("nodes")[0].fields["job_id"] == alone.job_id
    assert [path for run in runs for path in run.run.path.rglob("keys.json")] == []


def test_nothing_is_left_of_a_sweep_that_cannot_be(site: Site) -> None:
    runs = site.project.folder / "runs"
    before = sorted(runs.glob("*"))
    done = site.sweep("name=none", "train.seed=1,2", "train.micro_batch_size=1,3")
    assert done.returncode == 2
    assert "global_batch_size" in done.stderr
    done = site.sweep("name=none", "cluster.constraint=fast,faster")
    assert done.returncode == 2
    assert "cluster.constraint: fast is a feature of no node" in done.stderr
    assert sorted(runs.glob("*")) == before
