"""Whether a job goes on, by the causes so far and the run file's budgets."""

import pytest

from trainwright.config.restarts import RestartsConfig
from trainwright.launchers.decision import Past, decide
from trainwright.launchers.ends import Cause

_LIMITS = RestartsConfig(crashes=2, nodes=1, preemptions=5, time_limits=4, without_progress=3)


_LIMIT: tuple[Cause, bool] = ("time limit", True)
_HANG: tuple[Cause, bool] = ("hang", True)


def _past(*causes: tuple[Cause, bool]) -> list[Past]:
    return [Past(attempt=number, cause=cause, committed=done) for number, (cause, done) in enumerate(causes, 1)]


@pytest.mark.parametrize(
    ("past", "restart", "elsewhere", "why"),
    [
        (_past(("finished", True)), False, False, "the run is finished"),
        (_past(("cancelled", True)), False, False, "it was cancelled"),
        (_past(("mistake", True)), False, False, "a restart would not help"),
        (_past(("crash", False)), True, False, "crash: goes on from the last checkpoint"),
        (_past(("crash", True), ("crash", True)), True, False, "crash: goes on"),
        (
            _past(("crash", True), ("crash", True), ("hang", True)),
            True,
            False,
            "hang: goes on from the last checkpoint",
        ),
        (_past(*[_HANG] * 4), False, False, "3 restarts are allowed (restarts.hangs) and used"),
        (
            _past(("crash", True), ("crash", True), ("crash", True)),
            False,
            False,
            "2 restarts are allowed (restarts.crashes)",
        ),
        (_past(("preemption", True), ("crash", True), ("preemption", True), ("crash", True)), True, False, "crash"),
        (_past(("node failure", True)), True, True, "on other nodes"),
        (_past(("node failure", True), ("unhealthy node", True)), False, False, "(restarts.nodes)"),
        (_past(*[_LIMIT] * 4), True, False, "time limit"),
        (_past(*[_LIMIT] * 5), False, False, "(restarts.time_limits)"),
        (_past(("asked", False), ("preemption", False)), True, False, "preemption"),
        (_past(("asked", False), ("time limit", False), ("preemption", False)), False, False, "3 attempts in a row"),
        (_past(("asked", False), ("crash", True), ("asked", False), ("asked", False)), True, False, "asked"),
    ],
)
def test_decide(past: list[Past], restart: bool, elsewhere: bool, why: str) -> None:
    decision = decide(past, _LIMITS)
    assert (decision.restart, decision.elsewhere) == (restart, elsewhere)
    assert why in decision.why
