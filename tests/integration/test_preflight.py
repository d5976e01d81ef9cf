"""A node that is not like the others is found before the first step, on a real Slurm: the run is done without it."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainwright.launchers import dev_cluster

from .faulty_runs import ToyProject, ToyRun, toy_files

if TYPE_CHECKING:
    from .conftest import User

pytestmark = [pytest.mark.slurm, pytest.mark.ranks]
_ODD_TORCH = "Metadata-Version: 2.1\nName: torch\nVersion: 0.1\n"


@pytest.fixture(scope="module")
def run(ordinary_user: "User", small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyRun]:
    """A run over two of three nodes, after its end. The second node has another torch, as its metadata says."""
    cluster = Path("/tmp") / f"trainwright-test-preflight-{tmp_path_factory.mktemp('cluster').name}"
    project = ToyProject.make(ordinary_user, toy_files(tmp_path_factory.mktemp("toy"), small_store), cluster)
    patch = pytest.MonkeyPatch()
    try:
        _, odd, _ = dev_cluster.up(cluster, num_nodes=3).nodes
        metadata = project.folder / "odd" / "torch-0.1.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(_ODD_TORCH)
        path = f'[ "$(uname -n)" = {odd} ] && odd={project.folder}/odd:'
        python = f'PYTHONPATH="{project.folder}/toy:$odd$PYTHONPATH" exec {sys.executable} "$@"'
        (project.folder / "python").write_text(f"#!/bin/sh\n{path}\n{python}\n")
        ordinary_user.own(project.folder)
        patch.setenv("TRAINWRIGHT_DEV_CLUSTER", str(cluster))
        run = project.submit("cluster.nodes=2", "cluster.ranks_per_node=1", "train.steps=10")
        assert run.finish()["state"] == "finished", run.explain()
        yield run
    finally:
        patch.undo()
        dev_cluster.down(cluster)
        shutil.rmtree(project.folder, ignore_errors=True)


def test_an_odd_node_is_left_and_the_run_is_done_elsewhere(run: ToyRun) -> None:
    assert run.causes() == ["unhealthy node", "finished"], run.explain()
    odd = run.hosts(1)[1]
    assert odd not in run.hosts(2).values()
    assert run.steps_of(1) == []
    assert run.steps_of(2) == list(range(1, 11))
    [entry] = run.events("exclude")
    assert entry.fields["host"] == odd
    assert entry.fields["reason"].startswith(f"unhealthy node: preflight: {odd}: torch is 0.1, and ")


def test_ranks_of_good_nodes_leave_too_and_all_say_which_node_it_was(run: ToyRun) -> None:
    verdicts = {each.fields["rank"]: each.fields for each in run.events("verdict") if each.attempt == 1}
    assert {rank: fields["code"] for rank, fields in verdicts.items()} == {0: 85, 1: 86}
    [cause] = [each.fields for each in run.events("cause") if each.attempt == 1]
    assert cause["why"] == verdicts[0]["message"] == verdicts[1]["message"]
    assert cause["ranks"] == [1]


def test_what_the_ledger_and_status_have(run: ToyRun) -> None:
    bad, good = run.events("preflight")
    assert [(each["host"], each["check"]) for each in bad.fields["findings"]] == [(run.hosts(1)[1], "versions")]
    assert (good.fields["nodes"], good.fields["ranks"], good.fields["findings"]) == (2, 2, [])
    assert good.fields["clock_skew_s"] <= 2 * good.fields["clock_skew_known_to_s"], "it is one clock"
    assert good.fields["seconds"] < 30
    assert run.status()["preflight"] == good.fields
    assert "trainwright: preflight in " in run.run.rank_log(2, 0).read_text()
