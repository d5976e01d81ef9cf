"""Ranks that make no progress any more: who everyone waits for is named, and the run goes on from its last checkpoint.

Of ten kinds of hangs on a real Slurm two; all of them, and megatron-core's, in `make test-matrix`.
"""

import os
import random
import re
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainwright.launchers.follow import wait_for_end
from trainwright.tracking.hang_reports import numbers_text
from trainwright.tracking.ledger import read_ledger
from trainwright.tracking.recorder import read_attempts

from .faulty_runs import ToyProject, ToyRun, toy_files
from .real_runs import LAYOUTS, WHOLE, Model, make_project, start, wait_for_step

if TYPE_CHECKING:
    from .conftest import User

pytestmark = pytest.mark.ranks
_AT = 50  # after the checkpoint of step 40
_FIRST = (
    rf"^hang: rank {{rank}} has not entered all_reduce #{_AT} of the pair group \[{{pair}}\] \(rank {{partner}} waits"
)
_ALL = r"#\d+ of the default group \[{all}\]"
_SHORT = ("restarts.hang_after_s=5",)


@dataclass(frozen=True)
class Kind:
    """A way to hang, and what must be said of it: a pattern with the rank at fault, its partner and others in it."""

    fault: str
    line: str
    alone: bool = True
    """Nothing but this rank is at fault; else it is one of several that wait for each other."""
    overrides: tuple[str, ...] = _SHORT


KINDS = {
    "stopped": Kind("stop", _FIRST + r".*rank {rank} does not answer \(on \S+, it is stopped by a signal\)"),
    "asleep": Kind("hang", _FIRST + r".*rank {rank} is in toy_hangs._sleep \(toy_hangs.py:\d+\)$"),
    "in C": Kind("hang-in-c", _FIRST + r".*rank {rank} is in toy_hangs._in_c \(toy_hangs.py:\d+\)$"),
    "in C with Python's lock": Kind(
        "hang-with-lock", _FIRST + r".*does not answer \(on .*\), in _in_c_with_pythons_lock"
    ),
    "reading": Kind("read", _FIRST + r".*rank {rank} is in toy_hangs._read_a_file \(toy_hangs.py:\d+\)$"),
    "asleep later": Kind("hang-after-pair", r"^hang: rank {rank} has not entered all_reduce " + _ALL),
    "another collective": Kind("broadcast", "different collectives were called as " + _ALL + ".*rank {rank} broadcast"),
    "a receive too many": Kind(
        "receive", r"rank {rank} for rank {after} in send/recv #1 from rank {after}", alone=False
    ),
    "a collective too few": Kind(
        "skip-pair", rf"rank {{partner}} for rank {{rank}} in all_reduce #{_AT} of", alone=False
    ),
    "in a save": Kind(
        "hang-in-save",
        r"^hang: rank {rank} has not entered all_reduce " + _ALL + r".*rank {rank} is in toy_hangs._sleep",
        overrides=("restarts.hang_after_s=60", "restarts.hang_outside_steps_s=25", "checkpoint.every_steps=40"),
    ),
}
_CHOSEN = list(KINDS) if WHOLE else ["stopped", "a collective too few"]
_SIZE = 4 if WHOLE else 2


@pytest.fixture(scope="module")
def runs(
    dev_cluster: Path, ordinary_user: "User", small_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[ToyRun, int]]]:
    """Each kind's run after its end, and the rank that was at fault."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    files = toy_files(tmp_path_factory.mktemp("toy"), small_store)
    made: dict[str, tuple[ToyRun, int]] = {}
    for name in _CHOSEN:
        project, rank = ToyProject.make(ordinary_user, files, dev_cluster), draw.randrange(_SIZE)
        (project.folder / "faults" / "hold").unlink()
        layout = ("cluster.nodes=2" if WHOLE else "cluster.nodes=1", "cluster.ranks_per_node=2", "train.steps=85")
        run = project.submit(*layout, *KINDS[name].overrides)
        run.fault(rank, f"at {_AT} {KINDS[name].fault}")
        made[name] = run, rank
    with ThreadPoolExecutor(len(made)) as pool:
        list(pool.map(lambda each: each[0].finish(timeout_s=1500), made.values()))
    yield made
    for run, _ in made.values():
        shutil.rmtree(run.project.folder, ignore_errors=True)


@pytest.mark.slurm
@pytest.mark.parametrize("name", _CHOSEN)
def test_the_rank_and_the_collective_are_named_and_the_run_goes_on(
    name: str, runs: dict[str, tuple[ToyRun, int]]
) -> None:
    kind, (run, rank) = KINDS[name], runs[name]
    assert run.causes() == ["hang", "finished"], run.explain()
    cause = next(event.fields for event in run.events("cause") if event.attempt == 1)
    pair = numbers_text([rank, rank ^ 1])
    words = {"rank": rank, "partner": rank ^ 1, "pair": pair, "after": (rank + 1) % _SIZE}
    pattern = kind.line.format(**words, all=numbers_text([*range(_SIZE)]))
    print(f"{name}, rank {rank}: {cause['why']}")
    assert re.search(pattern, cause["why"]), (pattern, run.explain())
    assert cause["ranks"] == [rank] if kind.alone else rank in cause["ranks"]
    saved = [event.fields["step"] for event in run.events("commit") if event.attempt == 1]
    assert saved == [40], "the last checkpoint before, and none of the hung attempt"
    first, second = ({line["step"]: line["loss"] for line in lines} for lines in read_attempts(run.run).values())
    assert min(second) == 41
    assert max(second) == 85
    assert {step: second[step] for step in first if step > 40} == {s: first[s] for s in first if s > 40}, "bitwise"


@pytest.mark.slurm
def test_the_line_is_where_one_looks(runs: dict[str, tuple[ToyRun, int]]) -> None:
    run, rank = runs["stopped"]
    cause = next(event.fields for event in run.events("cause") if event.attempt == 1)
    said = run.project.user.trainwright("logs", run.run.path, "--attempt", "1").stdout
    assert f"trainwright: {cause['why']}" in said.splitlines()
    assert cause["why"] in run.run.batch_log(1).read_text()
    [other] = {0, 1} - {rank} if not WHOLE else [rank ^ 1]
    stacks = run.run.stacks(1, other).read_text()
    assert "train_step" in stacks, "the main thread"
    assert "watchdog.py" in stacks, "and others"


@pytest.mark.slurm
@pytest.mark.skipif(not WHOLE, reason="waits for the fourth hang: make test-matrix")
def test_hangs_have_a_budget(dev_cluster: Path, ordinary_user: "User", small_store: Path, tmp_path: Path) -> None:
    project = ToyProject.make(ordinary_user, toy_files(tmp_path, small_store), dev_cluster)
    (project.folder / "faults" / "hold").unlink()
    run = project.submit("cluster.nodes=1", "restarts.hangs=0", *_SHORT)
    run.fault(1, f"at {_AT} hang")
    now = run.finish()
    assert (now["state"], now["failing_rank"], now["code"]) == ("failed", 1, 87)
    assert re.search(r"^hang: rank 1 has not entered .*; hang: 0 restarts are allowed \(restarts.hangs\)", now["why"])


@pytest.mark.slurm
@pytest.mark.skipif(not WHOLE, reason="waits for slow things: make test-matrix")
def test_what_is_slow_has_not_hung(dev_cluster: Path, ordinary_user: "User", small_store: Path, tmp_path: Path) -> None:
    project = ToyProject.make(ordinary_user, toy_files(tmp_path, small_store), dev_cluster)
    (project.folder / "faults" / "hold").unlink()
    run = project.submit("cluster.nodes=1", "restarts.hang_after_s=7", "train.steps=60")
    run.fault(0, f"at {_AT} slow")
    assert run.finish()["state"] == "finished", run.explain()
    assert run.attempts() == 1


@pytest.mark.skipif(not WHOLE, reason="starts four ranks of megatron-core twice: make test-matrix")
@pytest.mark.parametrize("rank", [1, 2])
def test_megatron_in_tensor_and_pipeline_parallel(rank: int, tmp_path: Path) -> None:
    run = start(
        make_project(tmp_path, Model("llama", False)),
        f"stopped-{rank}",
        [*LAYOUTS["tp2_pp2"], "train.steps=1000000", "restarts.hang_after_s=8"],
    )
    wait_for_step(run, 5)
    pid = next(e.fields["pid"] for e in read_ledger(run) if e.event == "start" and e.fields.get("rank") == rank)
    os.kill(pid, signal.SIGSTOP)
    now = wait_for_end(run, lambda _: None)
    print(now.why)
    assert (now.state, now.failing_rank, now.code) == ("failed", rank, 87)
    assert re.match(rf"hang: rank {rank} has not entered ", now.why)
    assert f"rank {rank} does not answer (on {os.uname().nodename}, it is stopped by a signal)" in now.why
