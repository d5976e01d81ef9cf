"""Runs that share a node and a job on a real Slurm: each has its share of it, and ends and goes on by itself."""

import json
import os
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainwright.config.cluster import ClusterConfig
from trainwright.launchers.dev_cluster.settings import ClusterSettings
from trainwright.launchers.job import TaskSpec, render_script
from trainwright.launchers.processes import wait_until
from trainwright.launchers.script import SupervisedRun

from .faulty_runs import ToyRun, curve, repeated
from .real_runs import IN_MATRIX
from .sites import Site, open_site

if TYPE_CHECKING:
    from .conftest import User

pytestmark = [pytest.mark.slurm, pytest.mark.ranks]


@pytest.fixture(scope="module")
def site(ordinary_user: "User", small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    settings = ClusterSettings(gpus_per_node=4)
    with open_site(settings, ordinary_user, small_store, tmp_path_factory) as opened:
        yield opened


def _submit(site: Site, *words: str) -> list[ToyRun]:
    """Runs that wait after their fiftieth step."""
    (site.project.folder / "faults" / "hold").touch()
    return site.swept(site.sweep(*words))


def _said(run: ToyRun) -> str:
    """What the job that several runs share has said."""
    pack = run.events("submit")[0].fields["pack"]
    return Path(pack, "batch.log").read_text()


def test_each_run_ends_and_starts_again_by_itself(site: Site) -> None:
    """Four runs, three to a node. A rank of one is killed, one is cancelled: neither concerns the run beside them."""
    runs = _submit(site, "name=alone", "train.steps=60", "train.seed=1,2,3,4", "--per-node", "3")
    hurt, beside, unwanted, last = runs
    assert hurt.job_id == beside.job_id == unwanted.job_id != last.job_id
    for run in runs:
        run.reach(50)
    assert set(hurt.hosts(1).values()) == set(beside.hosts(1).values()), "on the same node"

    os.kill(hurt.pids(1)[0], signal.SIGKILL)
    cancelled = site.project.user.trainwright("cancel", unwanted.run.path, "--json")
    assert json.loads(cancelled.stdout)["state"] == "cancelled", cancelled.stderr
    assert wait_until(lambda: hurt.attempts() == 2, 60, every_s=0.2), hurt.explain()
    assert site.states(runs) == ["running", "running", "cancelled", "running"]

    last.release()
    for run in (hurt, beside, last):
        assert run.finish()["state"] == "finished", run.explain()
    assert hurt.causes() == ["crash", "finished"], hurt.explain()
    assert [run.causes() for run in (beside, unwanted, last)] == [["finished"], ["cancelled"], ["finished"]]
    assert hurt.events("nodes")[1].fields["restarts"] == 0, "in the same start of the job"
    assert repeated(hurt.run)[0] == 41
    assert [path for run in runs for path in run.run.path.rglob("keys.json")] == []
    assert "toy" not in hurt.slurm("squeue", "--noheader", "--format=%j"), "no job is left"


@IN_MATRIX
def test_all_save_when_the_job_must_end_and_those_that_are_not_done_go_on(site: Site) -> None:
    """One of three is done before, the others go on after a requeue."""
    short, *others = _submit(site, "name=told", "train.steps=40,60,61", "--per-node", "3")
    for run in others:
        run.reach(50)
    assert short.finish()["state"] == "finished", short.explain()
    short.slurm("scancel", "--signal=USR2", "--batch", short.job_id)
    others[0].release()
    for run in others:
        assert run.finish()["state"] == "finished", run.explain()
        assert run.causes() == ["asked", "finished"], run.explain()
        assert repeated(run.run) == [], "nothing is done twice"
        assert run.events("nodes")[1].fields["restarts"] == 1, "by a requeue of the job"
    assert short.causes() == ["finished"]
    assert short.attempts() == 1
    first, second = (curve(run.run) for run in others)
    assert {step: first[step] for step in first} == {step: second[step] for step in first}, "same seed, bitwise"


@IN_MATRIX
def test_an_unhealthy_node_is_left_by_all_its_runs(site: Site) -> None:
    """A rank says that its node is; the run beside it saves, and both go on elsewhere."""
    runs = _submit(site, "name=ill", "train.steps=600", "train.seed=1,2", "--per-node", "2")
    for run in runs:
        run.reach(50)
    runs[0].fault(0, "exit 86")  # for whichever run sees it first
    runs[0].release()
    for run in runs:
        assert run.finish()["state"] == "finished", f"{run.status()} {run.explain()} {_said(run)}"
    told, asked = sorted(runs, key=lambda run: run.causes() != ["unhealthy node", "finished"])
    assert told.causes() == ["unhealthy node", "finished"], told.explain()
    assert asked.causes() == ["asked", "finished"], asked.explain()
    assert repeated(asked.run) == []
    assert set(told.hosts(1).values()).isdisjoint(told.hosts(2).values())
    assert told.hosts(2) == asked.hosts(2)


@IN_MATRIX
def test_runs_that_were_cancelled_while_they_waited_never_start(site: Site) -> None:
    """One of a waiting job at first, then the other: the job itself is cancelled with the last one."""
    words = ("name=waits", "train.steps=60", "train.seed=1,2,3,4", "--per-node=2", "--at-once=2")
    *running, first, second = _submit(site, *words)
    for run in running:
        run.reach(50)
    assert site.states([first, second]) == ["queued", "queued"]
    cancelled = site.project.user.trainwright("cancel", first.run.path, "--json")
    assert json.loads(cancelled.stdout)["state"] == "cancelled", cancelled.stderr
    assert site.states([first, second]) == ["cancelled", "queued"]
    site.project.user.trainwright("cancel", second.run.path)
    assert site.states([first, second]) == ["cancelled", "cancelled"]
    assert first.job_id not in first.slurm("squeue", "--noheader", "--array", "--format=%i").split()
    running[0].release()
    assert [run.finish()["state"] for run in running] == ["finished", "finished"]
    assert first.attempts() == second.attempts() == 0


def test_shares_of_gpus_and_cores_are_kept_apart(site: Site, tmp_path: Path) -> None:
    """The lines of the script itself, with another command: two steps at a time, each with GPUs of its own."""
    share = ClusterConfig(scheduler="slurm", ranks_per_node=2, gpus_per_node=2, cpus_per_rank=2)
    folder = site.project.folder / "shares"
    folder.mkdir()
    text = render_script(
        TaskSpec(
            name="shares",
            title="shares",
            function=print,
            cluster=share,
            directory=folder,
            folder=folder,
            logs=folder,
            template="pack.sbatch",
            run=SupervisedRun(folder=str(folder), attempt=1, lead_s=60, snapshot="0"),
            array=1,
            side_by_side=2,
        )
    )
    asked = re.findall(r"^#SBATCH --(?:nodes|ntasks|cpus|gpus|mem).*$", text, re.MULTILINE)
    own = text[text.index("share=(") : text.index("# member LINK")]
    step = 'srun "${share[@]}" sh -c \'echo "$CUDA_VISIBLE_DEVICES $SLURM_NTASKS $SLURM_CPUS_PER_TASK"; sleep 2\''
    lines = ["#!/bin/bash", *asked, own, "export SRUN_CPUS_PER_TASK=2", f"time ({step} & {step} & wait)"]
    script = folder / "shares.sh"
    script.write_text("\n".join(lines))
    site.project.user.own(folder)
    out = folder / "out"
    command = ["sbatch", "--wait", f"--output={out}", f"--chdir={folder}", str(script)]
    site.project.user.run(command, {"SLURM_CONF": str(site.project.conf)})
    said = out.read_text()
    steps = sorted(line for line in said.splitlines() if re.fullmatch(r"[\d,]+ \d+ \d+", line))
    assert steps == ["0,1 2 2", "0,1 2 2", "2,3 2 2", "2,3 2 2"], shlex.quote(said)
    assert float(re.findall(r"real\s+0m([\d.]+)s", said)[0]) < 3.9, f"one after the other: {said}"


def test_what_cannot_share_a_node_is_refused_before_anything_is_written(site: Site) -> None:
    folder = site.project.folder
    before = sorted((folder / "runs").glob("*"))
    cases = {
        ("cluster.nodes=2", "--per-node=2"): "--per-node: 2, but a run has 2 nodes; set cluster.nodes=1",
        (
            "cluster.nodes=1",
            "cluster.ranks_per_node=4",
            "--per-node=3",
        ): "--per-node: 3, which together ask for too much: cluster.cpus_per_rank: 1 x 12 ranks",
        ("cluster.nodes=1", "--per-node=0"): "--per-node: 0; give 1 or more runs",
        ("cluster.nodes=1", "--per-node=3", "--at-once=2"): "--at-once: 2, but --per-node starts 3 together",
        ("cluster.profile=local", "cluster.nodes=1", "--per-node=2"): "--per-node: 2, but there is no Slurm here",
    }
    for words, problem in cases.items():
        done = site.project.user.trainwright("sweep", folder / "run.yaml", "train.seed=1,2", *words)
        assert done.returncode == 2
        assert problem in done.stderr, done.stderr
    assert sorted((folder / "runs").glob("*")) == before
