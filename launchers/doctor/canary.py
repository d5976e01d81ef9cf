"""Canary jobs: what Slurm does to a job's processes, seen instead of told, and compared with the prediction."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...config.cluster import ClusterConfig
from ..processes import wait_until
from ..slurm import Slurm
from .canary_job import LEAD_S, CanaryJob, Record, kind_of
from .predict import EVENTS, PERIOD_S, Delivery, Window

EARLY_S, LATE_S = 2.0, 5.0
"""How far an observation may lie outside the predicted window: beats, polling and a loaded machine."""
Progress = Callable[[str], None]
Places = dict[str, int]
"""How many signals of each process were before an event."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What one process got at one event; times in seconds after the first signal to any process."""

    event: str
    process: str
    """Its name, such as rank1-child."""
    signals: dict[str, float]
    kill: float | None
    """When it was gone; None: it lived on."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What canaries are to show beside a signal to the step, the signal before the time limit, and scancel."""

    time_limit: bool = False
    preempt: str | None = None
    """Partition whose jobs preempt ours."""
    patience_s: float = 600.0
    """How long a job may wait in the queue."""


def run_canaries(cluster: ClusterConfig, predicted: list[Delivery], wanted: Wanted, say: Progress) -> list[Observed]:
    """Submit one job, and one each for the time limit and preemption if asked for; what their processes saw.

    `predicted` says how long it is worth waiting for a process's end. The jobs run in a folder of their own in the
    working directory, which is removed. Raises UserError.
    """
    place = Path(tempfile.mkdtemp(prefix="trainwright-canary-", dir=Path.cwd()))
    jobs: list[CanaryJob] = []

    def submit(name: str, minutes: int, lead_s: int, exclusive: bool = False) -> CanaryJob:
        jobs.append(CanaryJob(cluster, place / name, minutes=minutes, lead_s=lead_s, exclusive=exclusive))
        say(f"canary job {jobs[-1].job_id} ({name})")
        return jobs[-1]

    try:
        first = submit("cancel", 2, LEAD_S)
        limited = submit("time-limit", 1, 20) if wanted.time_limit else None  # beside the first: it takes longer
        found = _watch_cancel(first, predicted, wanted.patience_s)
        if limited is not None:
            found += _watch_time_limit(limited, predicted, wanted.patience_s)
        if wanted.preempt:
            job = submit("preemption", 10, 30, exclusive=True)
            found += _watch_preemption(job, cluster, wanted, predicted)
        return found
    finally:
        for job in jobs:
            with contextlib.suppress(Exception):
                job.close()
        time.sleep(1.5)  # what outlived its job sees the file `stop`
        shutil.rmtree(place, ignore_errors=True)


def _watch_cancel(job: CanaryJob, predicted: list[Delivery], patience_s: float) -> list[Observed]:
    job.wait_ready(patience_s)
    job.send("USR2")
    time.sleep(2)
    before: Places = {}
    first = job.records()
    found = _observed("step_signal", first, before, None)
    before = _places(first)
    wait_until(lambda: _places(job.records()) != before, 75, every_s=0.3)
    time.sleep(1.5)
    second = job.records()
    found += _observed("lead_signal", second, before, None)
    job.cancel()
    living = job.wait_dead(*_worth_waiting(predicted, "cancel"))
    return found + _observed("cancel", job.records(), _places(second), living)


def _watch_time_limit(job: CanaryJob, predicted: list[Delivery], patience_s: float) -> list[Observed]:
    job.wait_ready(patience_s)
    patience_s, survivors = _worth_waiting(predicted, "time_limit")
    living = job.wait_dead(60 + 2 * PERIOD_S + patience_s, survivors)
    records = job.records()
    terms = [at for record in records.values() for at, name in record.signals if name == "TERM"]
    limit = min(terms, default=0) - 0.5  # what came before is the lead signal
    before = {name: sum(at < limit for at, _ in record.signals) for name, record in records.items()}
    return _observed("time_limit", records, before, living)


def _watch_preemption(
    job: CanaryJob, cluster: ClusterConfig, wanted: Wanted, predicted: list[Delivery]
) -> list[Observed]:
    """The job has its node alone, so that the urgent one, bound to that node, pushes nobody else away."""
    node = job.wait_ready(wanted.patience_s)
    urgent = job.folder / "urgent.sh"
    lines = [f"#SBATCH --partition={wanted.preempt} --nodelist={node} --exclusive --time=1 --output=/dev/null"]
    lines += [f"#SBATCH --{name}={value}" for name in ("account", "qos") if (value := getattr(cluster, name))]
    urgent.write_text("\n".join(["#!/bin/bash", "#SBATCH --job-name=trainwright-canary", *lines, "sleep 1\n"]))
    slurm = Slurm(cluster)
    other = slurm.sbatch(urgent, {})
    try:
        wait_until(lambda: any(record.signals for record in job.records().values()), 90, every_s=0.3)
        living = job.wait_dead(*_worth_waiting(predicted, "preemption"))
        return _observed("preemption", job.records(), {}, living)
    finally:
        slurm.cancel(other)


def _worth_waiting(predicted: list[Delivery], event: str) -> tuple[float, set[str]]:
    """How long the end of a job may take after an event's first signal, and the kinds of processes that live on."""
    mine = [delivery for delivery in predicted if delivery.event == event]
    last = max((delivery.kill[1] for delivery in mine if delivery.kill), default=60.0)
    return last + 10, {delivery.process for delivery in mine if delivery.kill is None}


def _places(records: dict[str, Record]) -> Places:
    return {name: len(record.signals) for name, record in records.items()}


def _observed(event: str, records: dict[str, Record], before: Places, living: set[str] | None) -> list[Observed]:
    """What is new since `before`; `living` None: nobody was to die."""
    new = {name: record.signals[before.get(name, 0) :] for name, record in records.items()}
    start = min((at for signals in new.values() for at, _ in signals), default=None)
    found = []
    for name, signals in new.items():
        firsts: dict[str, float] = {}
        for at, word in signals:
            firsts.setdefault(word, at - (start or at))
        gone = living is not None and name not in living and start is not None
        kill = records[name].last_beat - start if gone and start is not None else None
        found.append(Observed(event=event, process=name, signals=firsts, kill=kill))
    return found


def differences(predicted: list[Delivery], observed: list[Observed]) -> list[str]:
    """One line for each way in which an observation is not what was predicted."""
    table = {(delivery.event, delivery.process): delivery for delivery in predicted}
    found = []
    for seen in observed:
        told = table.get((seen.event, kind_of(seen.process)))
        if told is not None:
            found += [f"{EVENTS[seen.event]}: {seen.process} {what}" for what in _differs(told, seen)]
    return found


def _differs(told: Delivery, seen: Observed) -> Iterator[str]:
    if set(told.signals) != set(seen.signals):
        yield f"got {_words(seen.signals)}, predicted {_words(told.signals)}"
    for name in sorted(set(told.signals) & set(seen.signals)):
        if not _within(seen.signals[name], told.signals[name]):
            yield f"got {name} after {seen.signals[name]:.0f} s, predicted {span(told.signals[name])}"
    if (told.kill is None) != (seen.kill is None):
        was = "lived on" if seen.kill is None else f"was gone after {seen.kill:.0f} s"
        yield f"{was}, predicted {'to live on' if told.kill is None else f'SIGKILL after {span(told.kill)}'}"
    elif told.kill is not None and seen.kill is not None and not _within(seen.kill, told.kill):
        yield f"was gone after {seen.kill:.0f} s, predicted {span(told.kill)}"


def span(window: Window) -> str:
    """A window in words."""
    return f"{window[0]:.0f} s" if window[0] == window[1] else f"{window[0]:.0f} to {window[1]:.0f} s"


def _within(at: float, window: Window) -> bool:
    return window[0] - EARLY_S <= at <= window[1] + LATE_S


def _words(signals: "dict[str, float] | dict[str, Window]") -> str:
    return "+".join(sorted(signals)) or "nothing"
