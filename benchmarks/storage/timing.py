"""Candidate and baseline take turns in one process: tokens per CPU second of all threads, and per second of wall."""

import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Work = Callable[[float], int]
"""Works for about so many seconds and says how many tokens it dealt with."""


@dataclass(frozen=True)
class Rate:
    """Million tokens per second."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Comparison:
    """Medians over the rounds; each ratio is taken within a round, where the machine's load is the same."""

    ours: Rate
    theirs: Rate
    cpu_ratio: float
    wall_ratio: float
    cpu_range: tuple[float, float]
    """Smallest and largest ratio of CPU rates."""


def alternate(
    ours: Work, theirs: Work, seconds: float, rounds: int, before: Callable[[], None] = lambda: None
) -> Comparison:
    """Time both in turns, each first as often as the other; `before` is called before each, and not timed."""
    pairs = []
    for turn in range(rounds):
        rates = {}
        for work in (ours, theirs) if turn % 2 else (theirs, ours):
            before()
            rates[work] = rate(work, seconds)
        pairs.append((rates[ours], rates[theirs]))
    return compared(pairs)


def compared(pairs: list[tuple[Rate, Rate]]) -> Comparison:
    """Medians of (ours, theirs) of each round."""
    cpu = [ours.cpu / theirs.cpu for ours, theirs in pairs]
    return Comparison(
        ours=_median([ours for ours, _ in pairs]),
        theirs=_median([theirs for _, theirs in pairs]),
        cpu_ratio=statistics.median(cpu),
        wall_ratio=statistics.median(ours.wall / theirs.wall for ours, theirs in pairs),
        cpu_range=(min(cpu), max(cpu)),
    )


def rate(work: Work, seconds: float) -> Rate:
    """Rate of one piece of work, by the CPU seconds of this process and its children, and by the clock."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    tokens = work(seconds)
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    return Rate(tokens / max(cpu, 1e-9) / 1e6, tokens / wall / 1e6)


def cpu_seconds() -> float:
    """CPU seconds so far of all threads of this process and of its children; of living children in steps of 10 ms."""
    living = sum(_of_process(child.pid) for child in multiprocessing.active_children() if child.pid)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + living + ended.ru_utime + ended.ru_stime


def _of_process(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _median(rates: list[Rate]) -> Rate:
    return Rate(statistics.median(each.cpu for each in rates), statistics.median(each.wall for each in rates))
