"""Staging of a run's stores on every node before its first step; ranks wait for each other however long it takes."""

from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Event, Thread

from ..config.data import DataConfig
from ..config.errors import FoundBad, UserError
from ..storage.loading.staging import say_on_stderr, set_aside, stage_stores
from ..storage.loading.training_data import BadSource
from .ranks import all_agree

_TURN_S = 2.0  # far below the patience of a collective operation, which one long wait for a slow node would exceed


class _Stopped(Exception):
    """Another rank failed."""


def stage(data: DataConfig, progressed: Callable[[str], None]) -> DataConfig:
    """The data section to open: its stores, or their copies on this node's disk. Every rank calls it, once joined.

    Raises UserError on all ranks if it fails on one.
    """
    if data.stage_to is None:
        return data
    stop, work = Event(), Future[DataConfig]()
    Thread(target=_work, args=(data, stop, work), daemon=True, name="stage").start()
    while True:
        failed = work.done() and work.exception() is not None
        if not all_agree(not failed):
            break
        if all_agree(work.done()):
            return work.result()
        progressed("stage")  # copies may take hours; that all ranks answer is progress
        wait([work], _TURN_S)
    stop.set()
    if failed:
        work.result()
    raise UserError("data.stage_to", "another rank could not copy the stores to its node", "see its log")


def damage_in_copy(copy: Path, error: BadSource) -> FoundBad:
    """What to raise when a staged copy turns out to be damaged: it is out of the way of the next attempt."""
    aside = set_aside(copy)
    remedy = "`trainwright submit RUN` goes on with a new copy"
    return FoundBad(error.where, f"{error.problem} (the copy of data.stage_to; now {aside})", remedy)


def _work(data: DataConfig, stop: Event, work: "Future[DataConfig]") -> None:
    def check_stop() -> None:
        if stop.is_set():
            raise _Stopped

    try:
        work.set_result(stage_stores(data, say_on_stderr, check_stop))
    except BaseException as error:
        work.set_exception(error)
