"""What earlier attempts of a run took: a step, a save, a start; None is not measured."""

from dataclasses import dataclass
from statistics import median

from ..config.loading import load_frozen
from ..config.run import RunConfig
from ..config.rundir import RunDir
from .ledger import read_ledger
from .recorder import read_attempts
from .save_times import save_seconds


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Seconds; None: not measured."""

    step_s: float | None = None
    """Median time of a step of attempts that were computed in the same way on as many ranks."""
    save_s: float | None = None
    """Median time of a committed save."""
    longest_save_s: float | None = None
    restart_s: float | None = None
    """Median time from the first word of an attempt in its job to the beginning of its first step, of the same attempts
    as step_s."""


def timings_of(run_dir: RunDir, run: RunConfig) -> Timings:
    """What the attempts in `run_dir` took, as far as they tell something about `run`."""
    saves = save_seconds(run_dir)
    alike = _alike(run_dir, run)
    lines = {attempt: steps for attempt, steps in read_attempts(run_dir).items() if attempt in alike and steps}
    steps = [line["seconds"] for attempt in lines for line in lines[attempt]]
    begins: dict[int, float] = {}
    for event in read_ledger(run_dir) if lines else ():
        if event.event in ("nodes", "start"):  # by time
            begins.setdefault(event.attempt, event.time)
    firsts = {attempt: lines[attempt][0] for attempt in lines if attempt in begins}
    starts = [first["time"] - first["seconds"] - begins[attempt] for attempt, first in firsts.items()]
    return Timings(
        step_s=median(steps) if steps else None,
        save_s=median(saves) if saves else None,
        longest_save_s=max(saves, default=None),
        restart_s=max(0.0, median(starts)) if starts else None,
    )


def _alike(run_dir: RunDir, run: RunConfig) -> set[int]:
    """Attempts with the layout, the batch and the place of `run`."""
    wanted = _kind(run)
    frozen = {attempt: run_dir.attempt_yaml(attempt) for attempt in run_dir.attempts()}
    return {attempt for attempt, path in frozen.items() if path.is_file() and _kind(load_frozen(path)) == wanted}


def _kind(run: RunConfig) -> tuple[object, ...]:
    train, cluster = run.train, run.cluster
    batch = (train.global_batch_size, train.micro_batch_size, train.precision, train.recompute)
    place = (cluster.scheduler, cluster.partition, cluster.nodes, cluster.ranks_per_node, cluster.gpus_per_node)
    return (run.parallelism, run.data.sequence_length, batch, place, cluster.gpu_type)
