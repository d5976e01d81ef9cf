"""What is recorded of an attempt while it trains: rank 0's metrics, each node's GPUs, the picture at the end."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..tracking.gpu_sampler import GpuSampler
from ..tracking.plot import plot_loss
from ..tracking.recorder import Recorder, StepRecord
from .engine import StepResult
from .ranks import Rank


@contextmanager
def recording(run: RunConfig, run_dir: RunDir, attempt: int, me: Rank) -> Iterator[Recorder | None]:
    """Rank 0's recorder (every rank knows the loss), closed as finished only if nothing was raised.

    The first rank of each node samples that node's GPUs meanwhile.
    """
    gpus = GpuSampler(run_dir.gpus(attempt, me.rank)) if me.local_rank == 0 else None
    recorder = Recorder(run, run_dir, attempt, gpus=gpus) if me.rank == 0 else None
    finished = False
    try:
        yield recorder
        finished = True
    finally:
        if gpus:
            gpus.close()
        if recorder:
            recorder.close(finished)


def draw(run_dir: RunDir) -> None:
    """The loss over the steps, as a picture."""
    try:
        plot_loss(run_dir)
    except Exception:  # a picture must not fail a run that has finished
        traceback.print_exc()


def step_record(
    step: int, result: StepResult, rate: float, seconds: float, held_out: dict[str, float] | None
) -> StepRecord:
    """A step as it is recorded."""
    return StepRecord(
        step=step,
        loss=result.loss,
        grad_norm=result.grad_norm,
        lr=rate,
        tokens=result.tokens,
        seconds=seconds,
        skipped=result.skipped,
        routing=result.routing,
        held_out=held_out,
    )
