"""What befalls a run on a real Slurm, and that it goes on by itself, exactly; the toy engine computes.

Runs of this file share the cluster, some at a time, since most of their time is waiting.
"""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .befall import cancel_and_save, kill_a_rank, nothing, scancel, signal_ranks, signal_script
from .faulty_runs import ToyProject, ToyRun, curve, repeated, toy_files

if TYPE_CHECKING:
    from .conftest import User

pytestmark = [pytest.mark.slurm, pytest.mark.ranks]
_AT_ONCE = 5  # more ranks that start together would let Slurm's own daemons answer too late
_FAULT_AT = 50  # ten steps after a checkpoint; the toy engine waits there


@dataclass(frozen=True)
class Cell:
    """One fault: what is done to a run at its fiftieth step, and how its attempts must end."""

    fault: Callable[[ToyRun], None]
    causes: list[str]
    overrides: tuple[str, ...] = ("cluster.nodes=1",)
    lost: bool = False
    """Steps since the last checkpoint are done again."""
    state: str = "finished"


_TWO_NODES = ("cluster.nodes=2", "cluster.ranks_per_node=1")
CELLS = {
    "nothing": Cell(nothing, ["finished"], _TWO_NODES),
    "asked": Cell(signal_script, ["asked", "finished"], _TWO_NODES),
    "signal to the ranks": Cell(signal_ranks, ["asked", "finished"]),
    "killed rank": Cell(kill_a_rank, ["crash", "finished"], _TWO_NODES, lost=True),
    "unhealthy node": Cell(lambda run: run.fault(1, "exit 86"), ["unhealthy node", "finished"], lost=True),
    "killed in a save": Cell(lambda run: run.fault(1, "kill-in-save"), ["crash", "finished"], lost=True),
    "full disk": Cell(lambda run: run.fault(1, "full"), ["full disk", "finished"], lost=True),
    "no crash allowed": Cell(
        kill_a_rank, ["crash"], ("cluster.nodes=1", "restarts.crashes=0"), lost=True, state="failed"
    ),
    "cancel --save": Cell(cancel_and_save, ["cancelled"], state="cancelled"),
    "scancel": Cell(scancel, ["cancelled"], state="cancelled"),
}


def _befall(project: ToyProject, cell: Cell) -> tuple[ToyRun, dict[str, Any]]:
    """Submit a run and let it happen after the fiftieth step; the run, and its status after the end."""
    run = project.submit(*cell.overrides)
    run.reach(_FAULT_AT, timeout_s=240)
    cell.fault(run)
    run.release()
    return run, run.finish()


@pytest.fixture(scope="module")
def outcomes(
    dev_cluster: Path, ordinary_user: "User", small_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[ToyRun, dict[str, Any]]]]:
    """Each cell's run and its last status, after all have ended."""
    files = toy_files(tmp_path_factory.mktemp("toy"), small_store)
    projects = [ToyProject.make(ordinary_user, files, dev_cluster) for _ in CELLS]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield dict(zip(CELLS, pool.map(_befall, projects, CELLS.values()), strict=True))
    for project in projects:
        shutil.rmtree(project.folder, ignore_errors=True)


@pytest.mark.parametrize("name", CELLS)
def test_cell(name: str, outcomes: dict[str, tuple[ToyRun, dict[str, Any]]]) -> None:
    cell, (run, now), reference = CELLS[name], outcomes[name], curve(outcomes["nothing"][0].run)
    assert now["state"] == cell.state, run.explain()
    # A plain scancel leaves the batch script KillWait for its last words: too little where the load is high.
    assert run.causes() == cell.causes or (name == "scancel" and not run.causes()), run.explain()
    losses = curve(run.run)
    assert losses == {step: reference[step] for step in losses}, "not the same losses, bitwise"
    commits = [(event.attempt, event.fields["step"]) for event in run.events("commit")]
    first = [step for attempt, step in commits if attempt == 1]
    if cell.state == "finished":
        assert sorted(losses) == list(range(1, 201))
    if name == "nothing":
        assert first == [40, 80, 120, 160, 200]
    elif cell.lost:
        assert first == [40], "no more than the checkpoint from before the fault"
        assert not repeated(run.run) or repeated(run.run)[0] == 41
    elif name != "scancel":  # which may kill while they save
        [stop] = [event.fields["step"] for event in run.events("stopping") if event.writer == "rank-00000"]
        assert first == [*range(40, stop, 40), stop], "one more checkpoint, of the step at which all stopped"
        assert repeated(run.run) == []


def test_an_unhealthy_node_is_left_and_the_journal_says_why(outcomes: dict[str, tuple[ToyRun, dict[str, Any]]]) -> None:
    run = outcomes["unhealthy node"][0]
    assert set(run.hosts(1).values()).isdisjoint(run.hosts(2).values())
    [entry] = run.events("exclude")
    assert entry.fields["host"] == run.hosts(1)[1]
    assert entry.fields["reason"] == "unhealthy node"
    assert entry.fields["until"] - entry.time == pytest.approx(24 * 3600, abs=5)


def test_logs_of_all_ranks_and_why_each_attempt_ended(outcomes: dict[str, tuple[ToyRun, dict[str, Any]]]) -> None:
    run = outcomes["killed rank"][0]
    done = run.project.user.trainwright("logs", "-f", run.run.path)
    assert done.stdout.startswith(f"=== attempt 2 on {', '.join(sorted(run.hosts(2).values()))} ===\n")
    assert all(line.startswith(("[0] ", "[1] ", "[batch] ")) for line in done.stdout.splitlines()[1:])
    killed, finished, last = done.stderr.splitlines()
    words = f"attempt 1 ended: a rank failed or was killed, rank 1 on {run.hosts(1)[1]}: Killed, saved step 40, goes on"
    assert killed.startswith(words)
    assert finished == "attempt 2 ended: finished"
    assert last.endswith("finished at step 200/200")


def test_what_status_says_after_an_end_for_good(outcomes: dict[str, tuple[ToyRun, dict[str, Any]]]) -> None:
    _, stopped = outcomes["no crash allowed"]
    assert stopped["why"].startswith("rank 1: Killed")
    assert "0 restarts are allowed (restarts.crashes) and used" in stopped["why"]
    assert outcomes["cancel --save"][1]["why"] == "cancelled by `trainwright cancel`"
    assert outcomes["scancel"][1]["why"] == "cancelled by somebody with scancel"


def test_no_child_of_a_rank_outlives_it(outcomes: dict[str, tuple[ToyRun, dict[str, Any]]]) -> None:
    user = outcomes["nothing"][0].project.user
    assert user.run(["pgrep", "-u", user.name, "-f", "launchers.worker"]).stdout == ""
