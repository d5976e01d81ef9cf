"""The loss plot of a run: one PNG, drawn without a display."""

import math
import os
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from ..config.errors import UserError
from ..config.rundir import RunDir
from .recorder import read_metrics

_LOSS, _RATE, _NORM, _GREY = "#1f4e9c", "#b4551d", "#4d7c3a", "#8a8a8a"


def plot_loss(run_dir: RunDir) -> Path:
    """Draw loss, learning rate and gradient norm over steps and tokens into `RunDir.loss_plot`; returns its path.

    Raises UserError if the run has recorded no step.
    """
    records = read_metrics(run_dir)
    if not records:
        raise UserError(f"{run_dir.telemetry}", "holds no recorded step", "wait for the first step, then plot again")
    # Imported here: no command that only reads files pays for it. Agg needs no display and no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _draw_loss(above, records, run_dir.name)
    _draw_rate_and_norm(below, records)
    beside = run_dir.loss_plot.with_name(f".{run_dir.loss_plot.name}-{os.getpid()}")
    try:
        with beside.open("wb") as file:
            canvas.print_png(file)
        beside.replace(run_dir.loss_plot)
    finally:
        beside.unlink(missing_ok=True)
    return run_dir.loss_plot


def smooth(values: list[float], reach: int) -> list[float]:
    """Mean over `reach` neighbours on each side, fewer near the ends so that the line never lags; NaN is left out."""
    sums = [0.0, *accumulate(0.0 if math.isnan(value) else value for value in values)]
    counts = [0, *accumulate(0 if math.isnan(value) else 1 for value in values)]
    result = []
    for place in range(len(values)):
        near = min(reach, place, len(values) - 1 - place)
        first, end = place - near, place + near + 1
        known = counts[end] - counts[first]
        result.append((sums[end] - sums[first]) / known if known else math.nan)
    return result


def _draw_loss(axes: Any, records: list[dict[str, Any]], name: str) -> None:
    steps = [record["step"] for record in records]
    losses = [record["loss"] for record in records]
    line = smooth(losses, reach=max(1, len(steps) // 40))
    axes.plot(steps, losses, color=_LOSS, alpha=0.3, linewidth=0.8, label="each step", marker=_marker(steps))
    axes.plot(steps, line, color=_LOSS, linewidth=1.8, label="smoothed")
    last = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "color": _LOSS}
    axes.annotate(f"{line[-1]:.3f}", (steps[-1], line[-1]), **last)
    for before, after in pairwise(records):
        if after["attempt"] != before["attempt"]:
            axes.axvline(after["step"], color=_GREY, linewidth=0.8, linestyle=":")
            axes.text(
                after["step"],
                0.98,
                f" attempt {after['attempt']}",
                color=_GREY,
                fontsize=8,
                va="top",
                transform=axes.get_xaxis_transform(),
            )
    axes.set_ylabel("loss (nats per token)")
    axes.set_title(name, loc="left", fontweight="bold")
    axes.legend(frameon=False)
    _tidy(axes)
    _tokens_axis(axes, steps, list(accumulate(record["tokens"] for record in records)))


def _tokens_axis(axes: Any, steps: list[int], tokens: list[int]) -> None:
    """Tokens seen, along the top. Steps before the first record are taken to be as big as it."""
    import numpy as np

    before = tokens[0] * (steps[0] - 1)
    xs = np.array([steps[0] - 1, *steps], dtype=float)
    ys = np.array([before, *(before + each for each in tokens)], dtype=float)
    per_step = (ys[-1] - ys[0]) / (xs[-1] - xs[0])
    top = axes.secondary_xaxis(
        "top",
        functions=(lambda step: _stretch(step, xs, ys, per_step), lambda seen: _stretch(seen, ys, xs, 1 / per_step)),
    )
    top.set_xlabel("tokens", color=_GREY, fontsize=9)
    top.tick_params(colors=_GREY, labelsize=8)
    top.xaxis.set_major_formatter(_big_number)
    top.spines["top"].set_visible(False)


def _stretch(values: Any, xs: Any, ys: Any, slope: float) -> Any:
    """Interpolate, and go on in a straight line past both ends (axes are wider than the data)."""
    import numpy as np

    inside = np.interp(values, xs, ys)
    return inside + slope * (np.minimum(values - xs[0], 0) + np.maximum(values - xs[-1], 0))


def _big_number(value: float, _: object = None) -> str:
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _draw_rate_and_norm(axes: Any, records: list[dict[str, Any]]) -> None:
    steps = [record["step"] for record in records]
    axes.plot(steps, [record["lr"] for record in records], color=_RATE, linewidth=1.4, marker=_marker(steps))
    axes.set_ylabel("learning rate", color=_RATE, fontsize=9)
    axes.tick_params(axis="y", colors=_RATE, labelsize=8)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    _tidy(axes)
    norm = axes.twinx()
    norm.plot(
        steps, [record["grad_norm"] for record in records], color=_NORM, linewidth=0.8, alpha=0.8, marker=_marker(steps)
    )
    norm.set_ylabel("gradient norm", color=_NORM, fontsize=9)
    norm.tick_params(axis="y", colors=_NORM, labelsize=8)
    norm.set_ylim(bottom=0)
    norm.spines["top"].set_visible(False)


def _marker(steps: list[int]) -> str:
    """A single step draws no line, so it needs a dot."""
    return "." if len(steps) == 1 else ""


def _tidy(axes: Any) -> None:
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines["top"].set_visible(False)
    axes.spines["right"].set_visible(False)
    axes.margins(x=0.02)
