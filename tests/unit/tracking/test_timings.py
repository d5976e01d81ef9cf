"""What earlier attempts took: of like attempts alone, and None where nothing was measured."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from trainwright.config.loading import dump_run, load_run
from trainwright.config.run import RunConfig
from trainwright.config.rundir import RunDir
from trainwright.tracking.ledger import LedgerWriter
from trainwright.tracking.recorder import Recorder, StepRecord
from trainwright.tracking.timings import Timings, timings_of


def _attempt(run: RunConfig, run_dir: RunDir, records: list[StepRecord]) -> None:
    attempt = run_dir.next_attempt()
    run_dir.attempt_yaml(attempt).write_text(dump_run(run))
    LedgerWriter(run_dir, attempt, "supervisor").write("nodes")
    rank = LedgerWriter(run_dir, attempt, "rank-00000")
    rank.write("start")
    recorder = Recorder(run, run_dir, attempt, console=False)
    for record in records:
        recorder.step(record)
    recorder.close(ok=True)
    rank.write("save", step=1)
    rank.write("commit", step=1)


def test_nothing_was_measured(silent_run: RunConfig, run_dir: RunDir, tmp_path: Path) -> None:
    assert timings_of(run_dir, silent_run) == Timings()
    assert timings_of(RunDir(tmp_path / "no-such-run"), silent_run) == Timings()


def test_steps_of_like_attempts_and_saves_of_all(
    run_file: Path, silent_run: RunConfig, run_dir: RunDir, make_record: Callable[..., StepRecord]
) -> None:
    other = load_run(run_file, ["train.steps=30", "tracking.wandb.mode=disabled", "train.global_batch_size=8"])
    _attempt(silent_run, run_dir, [replace(make_record(step), seconds=step / 1000) for step in (1, 2, 6)])
    _attempt(other, run_dir, [replace(make_record(7), seconds=99.0)])
    found = timings_of(run_dir, silent_run)
    assert found.step_s == pytest.approx(0.002)
    assert found.restart_s is not None
    assert 0 <= found.restart_s < 60
    assert found.save_s is not None
    assert found.longest_save_s is not None
    assert 0 <= found.save_s <= found.longest_save_s
    assert timings_of(run_dir, other).step_s == 99.0
    more_steps = load_run(run_file, ["train.steps=300", "tracking.wandb.mode=disabled"])
    assert timings_of(run_dir, more_steps).step_s == found.step_s
