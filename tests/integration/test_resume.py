"""kill -9 at a random moment, also in the middle of a save, then another attempt: the same losses as uninterrupted."""

from collections.abc import Callable
from pathlib import Path

import pytest

from trainwright.storage.checkpoints.checkpoint import DATA_FILE, committed_steps

from .real_runs import (
    IN_MATRIX,
    LAYOUTS,
    ONE_RANK,
    Curve,
    Model,
    curve,
    go_on,
    kill_in_a_save,
    killed_and_resumed,
    largest_difference,
    make_project,
    run_chain,
    start,
    train,
)

pytestmark = pytest.mark.ranks
STEPS = 16
LENGTH = [f"train.steps={STEPS}", "checkpoint.every_steps=3"]
CHAIN = ["dp2", "tp2_sp", "pp2", "tp1", "tp2_pp2", "dp2", "tp4"]  # each killed at random and gone on with as the next


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("resume"), Model("qwen3", tied=True))


@pytest.fixture(scope="module")
def uninterrupted(project: Path) -> Callable[[str], Curve]:
    """The curve of a run that nobody killed, by layout; each is trained once."""
    curves: dict[str, Curve] = {}

    def of(layout: str) -> Curve:
        if layout not in curves:
            curves[layout] = curve(train(project, f"whole-{layout}", [*LENGTH, *LAYOUTS[layout]]))
        return curves[layout]

    return of


@IN_MATRIX
@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_layout_is_bitwise_equal(project: Path, uninterrupted: Callable[[str], Curve], layout: str) -> None:
    found = killed_and_resumed(project, f"killed-{layout}", [*LENGTH, *LAYOUTS[layout]], STEPS)
    assert found == uninterrupted(layout)


@IN_MATRIX
def test_other_layouts(project: Path) -> None:
    """Changes of layout in one run, six in the whole matrix, a kill before each, against one rank left alone."""
    assert run_chain(project, CHAIN) <= 1e-5


@IN_MATRIX
def test_muon(project: Path) -> None:
    """Bitwise in its layout; in others it is the same optimizer, whose iterations make more of rounding."""
    length = [*LENGTH, "train.optimizer.name=muon", "parallelism.zero=0"]
    whole = curve(train(project, "muon", [*length, *LAYOUTS["tp2_pp2"]]))
    assert killed_and_resumed(project, "muon-killed", [*length, *LAYOUTS["tp2_pp2"]], STEPS) == whole
    run = train(project, "muon-tp2", [*length, *LAYOUTS["tp2_sp"], "train.steps=6"])
    go_on(run, [*ONE_RANK, *length, *LAYOUTS["dp2"], "parallelism.zero=0"])
    difference = largest_difference(whole, curve(run))
    print(f"muon: another layout, then another: {difference:.1e}")
    assert difference <= 1e-3
    assert whole[STEPS][0] < whole[1][0]


@IN_MATRIX
def test_killed_in_the_middle_of_a_save(project: Path, uninterrupted: Callable[[str], Curve]) -> None:
    """A folder without a manifest is no checkpoint: the one before is used, and the step is saved again."""
    for attempt in range(5):
        run = start(project, f"torn-{attempt}", [*LENGTH, *LAYOUTS["dp2"]])
        if kill_in_a_save(run, 6):
            break
    else:
        pytest.fail("the save was over before the kill, five times")
    assert run.checkpoint(6).is_dir()
    assert committed_steps(run) == [3]
    go_on(run)
    assert curve(run) == uninterrupted("dp2")
    assert committed_steps(run) == [15, 16]


def test_corrupt_newest_checkpoint_is_set_aside(project: Path) -> None:
    run = train(project, "corrupt", ["train.steps=6", "checkpoint.every_steps=3", *LAYOUTS["dp2"]])
    data = run.checkpoint(6) / DATA_FILE.format(rank=1)
    content = bytearray(data.read_bytes())
    content[-7] ^= 1
    data.write_bytes(content)
    before = curve(run)
    go_on(run, ["train.steps=8"])
    log = run.rank_log(2, 0).read_text() + run.rank_log(2, 1).read_text()
    assert "set aside" in log
    assert data.name in log
    assert (run.checkpoints / "step-00000006.corrupt-1").is_dir()
    after = curve(run)
    assert sorted(after) == list(range(1, 9))
    assert {step: after[step] for step in range(1, 7)} == before
