"""The loss plot."""

import math
import stat
from collections.abc import Callable

import pytest

from trainwright.config.errors import UserError
from trainwright.config.run import RunConfig
from trainwright.config.rundir import RunDir
from trainwright.tracking.plot import plot_loss, smooth
from trainwright.tracking.recorder import Recorder, StepRecord

Make = Callable[..., StepRecord]


def test_a_png_is_drawn_and_drawn_again(silent_run: RunConfig, run_dir: RunDir, make_record: Make) -> None:
    recorder = Recorder(silent_run, run_dir, 1, console=False)
    recorder.step(make_record(1))
    first = plot_loss(run_dir).read_bytes()
    for step in range(2, 31):
        recorder.step(make_record(step, math.nan if step == 9 else None))
    recorder.close(ok=True)
    path = plot_loss(run_dir)
    assert path == run_dir.loss_plot
    second = path.read_bytes()
    assert first[:8] == second[:8] == b"\x89PNG\r\n\x1a\n"
    assert first != second
    assert _coloured_pixels(second) > 1000  # lines, not an empty frame
    assert [each.name for each in run_dir.path.iterdir()] == ["telemetry", "loss.png"]


def _coloured_pixels(png: bytes) -> int:
    from io import BytesIO

    from matplotlib.image import imread

    image = imread(BytesIO(png))[..., :3]
    return int((image.max(axis=-1) - image.min(axis=-1) > 0.2).sum())


def test_a_run_without_steps_says_so(run_dir: RunDir) -> None:
    with pytest.raises(UserError, match="holds no recorded step"):
        plot_loss(run_dir)
    assert not run_dir.loss_plot.exists()
    assert stat.S_IMODE(run_dir.path.stat().st_mode) == 0o700


def test_smoothing_neither_lags_nor_drifts() -> None:
    line = [float(value) for value in range(50)]
    assert smooth(line, 5) == pytest.approx(line)
    assert smooth([4.0] * 9, 3) == [4.0] * 9
    assert smooth([1.0, math.nan, 3.0], 1) == [1.0, 2.0, 3.0]
    assert math.isnan(smooth([math.nan], 1)[0])
