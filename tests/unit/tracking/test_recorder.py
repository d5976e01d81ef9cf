"""The metrics file: one line per step, safe against SIGKILL, attempts merged."""

import contextlib
import json
import math
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

from trainwright.config.run import RunConfig
from trainwright.config.rundir import RunDir
from trainwright.tracking.console import StepConsole
from trainwright.tracking.recorder import Recorder, StepRecord, read_metrics

Make = Callable[..., StepRecord]


def record(run: RunConfig, run_dir: RunDir, attempt: int, records: list[StepRecord]) -> None:
    recorder = Recorder(run, run_dir, attempt, console=False)
    for each in records:
        recorder.step(each)
    recorder.close(ok=True)


def test_each_step_is_one_json_line_with_its_numbers(silent_run: RunConfig, run_dir: RunDir, make_record: Make) -> None:
    before = time.time()
    record(silent_run, run_dir, 1, [make_record(step) for step in (1, 2)])
    lines = [json.loads(line) for line in run_dir.metrics(1).read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert list(lines[0]) == ["step", "loss", "grad_norm", "lr", "tokens", "seconds", "tokens_per_s", "time"]
    assert lines[0]["tokens_per_s"] == 4096 / 0.25
    assert before <= lines[0]["time"] <= time.time()


def test_a_loss_comes_back_bit_by_bit(silent_run: RunConfig, run_dir: RunDir, make_record: Make) -> None:
    losses = [0.1 + 0.2, math.pi, 5e-324, 1.7976931348623157e308]
    record(silent_run, run_dir, 1, [make_record(step, loss) for step, loss in enumerate(losses, 1)])
    assert [line["loss"] for line in read_metrics(run_dir)] == losses


def test_a_line_is_there_when_step_returns(silent_run: RunConfig, run_dir: RunDir, make_record: Make) -> None:
    recorder = Recorder(silent_run, run_dir, 1, console=False)
    recorder.step(make_record(1))
    assert len(read_metrics(run_dir)) == 1
    recorder.close(ok=False)


def test_of_a_repeated_step_the_latest_attempt_wins(silent_run: RunConfig, run_dir: RunDir, make_record: Make) -> None:
    record(silent_run, run_dir, 1, [make_record(step, 1.0) for step in range(1, 8)])
    record(silent_run, run_dir, 2, [make_record(step, 2.0) for step in range(5, 9)])
    record(silent_run, run_dir, 10, [make_record(9, 10.0)])
    merged = read_metrics(run_dir)
    assert [line["step"] for line in merged] == list(range(1, 10))
    assert [line["attempt"] for line in merged] == [1] * 4 + [2] * 4 + [10]
    assert [line["loss"] for line in merged] == [1.0] * 4 + [2.0] * 4 + [10.0]


def test_nan_is_null_on_disk_and_nan_when_read(silent_run: RunConfig, run_dir: RunDir, make_record: Make) -> None:
    record(silent_run, run_dir, 1, [make_record(1, math.nan), make_record(2, math.inf), make_record(3, 1.0)])
    assert "NaN" not in run_dir.metrics(1).read_text()
    assert [math.isnan(line["loss"]) for line in read_metrics(run_dir)] == [True, True, False]


def test_a_torn_last_line_is_left_out(silent_run: RunConfig, run_dir: RunDir, make_record: Make) -> None:
    record(silent_run, run_dir, 1, [make_record(1), make_record(2)])
    whole = run_dir.metrics(1).read_text()
    run_dir.metrics(1).write_text(whole[:-10])
    assert [line["step"] for line in read_metrics(run_dir)] == [1]


def test_a_run_without_metrics_has_no_steps(run_dir: RunDir) -> None:
    assert read_metrics(run_dir) == []


_KILLED = """
import os, signal, sys
from pathlib import Path
from trainwright.config.loading import load_run
from trainwright.config.rundir import RunDir
from trainwright.tracking.recorder import Recorder, StepRecord
recorder = Recorder(load_run(Path(sys.argv[1]), ["tracking.wandb.mode=disabled"]), RunDir(Path(sys.argv[2])), 1)
for step in range(1, 501):
    recorder.step(StepRecord(step=step, loss=1.0, grad_norm=1.0, lr=1.0, tokens=1, seconds=0.1))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_sigkill_loses_no_step(run_file: Path, run_dir: RunDir) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(run_file), str(run_dir.path)], timeout=60, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL
    assert len(read_metrics(run_dir)) == 500


class TestConsole:
    """Plain lines in a file, a bar on a terminal."""

    def test_first_and_last_step_have_a_line(self) -> None:
        stream = StringIO()
        console = StepConsole(1000, stream)
        for step in range(1, 1001):
            console.show(step, 5.0, 4096, 0.5)
        console.close()
        lines = stream.getvalue().splitlines()
        assert lines[0] == "step 1/1000  loss 5.0000  8,192 tokens/s  8:20 left"
        assert lines[-1] == "step 1000/1000  loss 5.0000  8,192 tokens/s  0:00 left"
        assert len(lines) == 2  # a thousand steps took no second

    def test_a_run_that_ends_early_shows_its_last_step(self) -> None:
        stream = StringIO()
        console = StepConsole(10, stream)
        for step in (4, 5, 6):
            console.show(step, 5.0, 100, 3600.0)
        console.close()
        assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["4/10", "6/10"]
        assert "4:00:00 left" in stream.getvalue()

    def test_a_terminal_shows_loss_speed_and_time_left(self) -> None:
        mine, theirs = pty.openpty()
        with os.fdopen(theirs, "w") as terminal:
            console = StepConsole(10, terminal)
            console.show(1, 6.5432, 4096, 0.5)
            console.close()
        shown = _read_all(mine)
        assert "loss 6.5432" in shown
        assert "8,192 tokens/s" in shown
        assert "1/10" in shown
        assert "0:04 left" in shown


def _read_all(terminal: int) -> str:
    """What a terminal was sent, after its other end was closed."""
    parts = []
    with contextlib.suppress(OSError), os.fdopen(terminal, "rb", buffering=0) as file:  # EIO is its end of file
        while part := file.read(65536):
            parts.append(part)
    return b"".join(parts).decode()
