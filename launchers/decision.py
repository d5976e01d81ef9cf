"""Whether a job goes on after an attempt ended: pure, from the causes so far and the run file's budgets."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..config.restarts import RestartsConfig
from .ends import Cause


@dataclass(frozen=True, kw_only=True)
class Past:
    """One attempt of this submission that is over."""

    attempt: int
    cause: Cause
    committed: bool
    """It committed a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What happens next, and in one line why."""

    restart: bool
    elsewhere: bool
    """Not on the nodes that were at fault."""
    why: str


_BUDGET = {
    "crash": "crashes",
    "full disk": "crashes",
    "hang": "hangs",
    "node failure": "nodes",
    "unhealthy node": "nodes",
    "preemption": "preemptions",
    "asked": "preemptions",
    "time limit": "time_limits",
}
_FINAL = {
    "finished": "the run is finished",
    "cancelled": "it was cancelled",
    "mistake": "a restart would not help",
}


def decide(past: Sequence[Past], limits: RestartsConfig) -> Decision:
    """What follows the last of `past`, the attempts of one submission in their order."""
    last = past[-1]
    if last.cause in _FINAL:
        return Decision(restart=False, elsewhere=False, why=_FINAL[last.cause])
    idle = _without_progress(past)
    if idle >= limits.without_progress:
        why = f"{idle} attempts in a row ended without a new checkpoint (restarts.without_progress)"
        return Decision(restart=False, elsewhere=False, why=why)
    field = _BUDGET[last.cause]
    budget = int(getattr(limits, field))
    used = sum(_BUDGET.get(attempt.cause) == field for attempt in past)
    if used > budget:
        why = f"{last.cause}: {budget} restarts are allowed (restarts.{field}) and used"
        return Decision(restart=False, elsewhere=False, why=why)
    elsewhere = field == "nodes"
    where = "on other nodes" if elsewhere else "from the last checkpoint"
    return Decision(restart=True, elsewhere=elsewhere, why=f"{last.cause}: goes on {where}")


def _without_progress(past: Sequence[Past]) -> int:
    """How many attempts at the end committed nothing."""
    count = 0
    for attempt in reversed(past):
        if attempt.committed:
            break
        count += 1
    return count
