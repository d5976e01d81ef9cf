"""Why each attempt of a run ended, in words, by its ledger."""

from collections.abc import Sequence

from ..config.verdicts import SAVED
from ..tracking.ledger import Event

_WORDS = {
    "finished": "finished",
    "cancelled": "it was cancelled",
    "mistake": "a rank met something that a restart would not mend",
    "time limit": "the job's time limit",
    "preemption": "Slurm gave its nodes to another job",
    "asked": "somebody's signal asked the ranks to save and leave",
    "node failure": "a node failed",
    "unhealthy node": "a rank said that its node is unhealthy",
    "hang": "no rank got on",
    "crash": "a rank failed or was killed",
}


def ends_in_words(events: Sequence[Event]) -> dict[int, str]:
    """By attempt, of those whose cause is recorded: what ended it, who failed, at which step, and what followed."""
    causes = {event.attempt: event for event in sorted(events, key=lambda event: event.time) if event.event == "cause"}
    return {attempt: _words(event, events) for attempt, event in sorted(causes.items())}


def _words(cause: Event, events: Sequence[Event]) -> str:
    own = [event for event in events if event.attempt == cause.attempt]
    name = str(cause.fields["cause"])
    parts = [_WORDS.get(name, name)]
    if name not in ("finished", "cancelled"):
        parts += _who_failed(own) + _hosts(cause, own)
    saved = [event.fields["step"] for event in own if event.event == "commit"]
    if saved and name != "finished":
        parts.append(f"saved step {max(saved)}")
    went_on = [event.fields for event in own if event.event == "requeue"]
    if went_on:
        parts.append(str(went_on[-1]["why"]).partition(": ")[2] or str(went_on[-1]["why"]))
    return ", ".join(parts)


def _who_failed(own: Sequence[Event]) -> list[str]:
    """Who was waited for, else the rank that srun saw fail first, else the first with a bad verdict; in its own words.

    srun comes first since a rank that is killed says nothing, and those beside it complain.
    """
    words = {event.fields["rank"]: event.fields["message"] for event in own if event.event == "verdict"}
    for event in own:
        if event.event == "cause" and event.fields.get("why"):
            return [str(event.fields["why"])]
    for event in own:
        failure = event.fields.get("failure") if event.event == "exit" else None
        if isinstance(failure, dict):
            return [f"rank {failure['rank']} on {failure['host']}: {words.get(failure['rank']) or failure['how']}"]
        if event.event == "exit" and event.fields.get("message"):
            return [str(event.fields["message"])]
    bad = [event.fields for event in own if event.event == "verdict" and event.fields["code"] not in (0, SAVED)]
    return [f"rank {bad[0]['rank']}: {bad[0]['message'] or bad[0]['code']}"] if bad else []


def _hosts(cause: Event, own: Sequence[Event]) -> list[str]:
    hosts = [*cause.fields.get("nodes", ()), *(event.fields["host"] for event in own if event.event == "exclude")]
    return [f"without {' and '.join(dict.fromkeys(hosts))}"] if hosts else []
