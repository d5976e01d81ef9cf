"""Which of a run's checkpoints has the lowest held-out loss."""

import math

from ...config.errors import FoundBad
from ...config.rundir import RunDir
from .checkpoint import committed_steps
from .manifest import read_manifest

HELD_OUT = "held_out"
"""Key of the manifest's scalars: loss by store, if the step was evaluated."""


def best_step(run: RunDir) -> int | None:
    """Step of the committed checkpoint with the lowest mean loss over the held-out stores; None if none has one."""
    losses = held_out_losses(run)
    return min(losses, key=lambda step: (losses[step], -step)) if losses else None


def held_out_losses(run: RunDir) -> dict[int, float]:
    """Step -> mean loss over the held-out stores, of each committed checkpoint that has one."""
    losses = {}
    for step in committed_steps(run):
        try:
            held_out = read_manifest(run.checkpoint(step)).scalars.get(HELD_OUT)
        except FoundBad:
            continue
        mean = sum(held_out.values()) / len(held_out) if held_out else math.nan
        if math.isfinite(mean):
            losses[step] = mean
    return losses
