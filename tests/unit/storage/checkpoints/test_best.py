"""Which checkpoint is the best, and that it outlives the others."""

from dataclasses import replace
from pathlib import Path

import pytest

from trainwright.config.errors import UserError
from trainwright.config.rundir import BEST, RunDir, split_step
from trainwright.storage.checkpoints.checkpoint import (
    HELD_OUT,
    best_step,
    committed_steps,
    find_checkpoint,
    held_out_losses,
)
from trainwright.storage.checkpoints.checkpoint_writer import remove_old
from trainwright.storage.checkpoints.manifest import read_manifest, write_manifest

from ...serving.small_run import make_run, write_checkpoint


def evaluated(run: RunDir, step: int, losses: dict[str, float]) -> None:
    """A checkpoint of a step that was evaluated."""
    folder = write_checkpoint(run, step)
    write_manifest(folder, replace(read_manifest(folder), scalars={HELD_OUT: losses}))


def test_the_lowest_mean_and_of_equal_ones_the_later(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert best_step(held_out_losses(run)) is None
    with pytest.raises(UserError, match=r"no checkpoint of small has a held-out loss; give evaluation\.stores"):
        find_checkpoint(f"{run.path}@best")
    evaluated(run, 6, {"a": 1.0, "b": 3.0})
    evaluated(run, 7, {"a": 2.0, "b": 1.0})
    evaluated(run, 8, {"a": 1.5, "b": 1.5})
    evaluated(run, 9, {"a": float("nan"), "b": 0.0})
    evaluated(run, 10, {"a": 4.0, "b": 0.5})
    assert held_out_losses(run) == {6: 2.0, 7: 1.5, 8: 1.5, 10: 2.25}
    assert best_step(held_out_losses(run)) == 8
    assert find_checkpoint(f"{run.path}@best").manifest.step == 8
    assert remove_old(run, keep=1, spare=best_step(held_out_losses(run))) == [5, 6, 7, 9]
    assert committed_steps(run) == [8, 10]


def test_the_word() -> None:
    assert split_step("run@best") == ("run", BEST)
