"""The state of an attempt: pure, from its events and what was found outside. What nobody knows is unknown."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..config.verdicts import HUNG, UNHEALTHY
from ..tracking.ledger import Event
from .ends import LIMIT
from .slurm import JobInfo

State = Literal["queued", "running", "finished", "failed", "cancelled", "unknown"]

_QUEUED = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
_RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
_FAILED = {"FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "PREEMPTED", "REVOKED"}
_CANCELLED = {"CANCELLED"}


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What was found outside the ledger. Either may be silent: None, with `silence` saying why."""

    job: JobInfo | None = None
    """Slurm's word for the job; None if it does not know it, or did not answer."""
    alive: bool | None = None
    """Whether a process of a local run lives; None where this machine cannot tell."""
    silence: str = ""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A state, one line that says why, and the rank whose log says more."""

    state: State
    why: str = ""
    rank: int | None = None
    code: int | None = None
    """The job's exit code: 93 if a rank reported a user's mistake, 88 if a disk refused a checkpoint."""


def judge(events: Sequence[Event], probe: Probe) -> Judgement:
    """The state of one attempt, from its events and what was found outside.

    A recorded end counts first, then what Slurm or the process table say, then the ranks' verdicts if all gave one.
    """
    submit = next((event.fields for event in events if event.event == "submit"), None)
    cancelled, end = _was_cancelled(events), _end(events)
    if end is not None and end.get("requeued") and not cancelled:
        told = _told(events)
        return _requeued(f"{told.why}; {end.get('why', '')}" if told else str(end.get("why", "")), probe)
    if end is not None:
        if end["code"] == 0:
            return Judgement(state="finished", code=0)
        if cancelled or end.get("slurm") == "cancelled":
            return Judgement(state="cancelled", why=_who_cancelled(cancelled), code=end["code"])
        return _with_decision(_told(events) or _failure(events, end), end)
    if submit is None:
        return Judgement(state="unknown", why="nothing was recorded after the attempt was claimed")
    if probe.job is not None:
        return _by_slurm(events, probe.job, cancelled, bool(submit.get("pack")))
    if probe.alive:
        return Judgement(state="running", why=probe.silence)
    return _by_verdicts(events, submit, probe, cancelled)


def is_over(events: Sequence[Event]) -> bool:
    """Whether an end for good is recorded, so that `judge` needs nothing from outside."""
    end = _end(events)
    return end is not None and not (end.get("requeued") and not _was_cancelled(events))


def _end(events: Sequence[Event]) -> dict[str, Any] | None:
    return next((event.fields for event in events if event.event == "exit" and event.writer == "supervisor"), None)


def _was_cancelled(events: Sequence[Event]) -> bool:
    return any(event.event == "cancel" for event in events)


def _who_cancelled(by_us: bool) -> str:
    return f"cancelled by {'`trainwright cancel`' if by_us else 'somebody with scancel'}"


def _failure(events: Sequence[Event], end: dict[str, object]) -> Judgement:
    """Why an attempt with a recorded end failed: the first failing rank's own words, else what ended it."""
    code = int(str(end["code"]))
    record = end.get("failure")
    rank, how = (int(record["rank"]), str(record["how"])) if isinstance(record, dict) else (None, "")
    words = {event.fields["rank"]: event.fields["message"] for event in events if event.event == "verdict"}
    if end.get("slurm"):
        return Judgement(state="failed", why=f"ended by Slurm: {end['slurm']}", rank=rank, code=code)
    if end.get("message"):
        return Judgement(state="failed", why=str(end["message"]), rank=rank, code=code)
    if end.get("signal"):
        why = f"ended by SIG{end['signal']}, which did not come from `trainwright cancel`"
        if end["signal"] == LIMIT:
            why = "its ranks had not left shortly before the time limit, and were ended"
        return Judgement(state="failed", why=why, rank=rank, code=code)
    if rank is not None and words.get(rank):
        return Judgement(state="failed", why=f"rank {rank}: {words[rank]}", rank=rank, code=code)
    if rank is not None:
        return Judgement(state="failed", why=f"rank {rank}: {how}, without a word of its own", rank=rank, code=code)
    return _loudest(events, code) or Judgement(state="failed", why=f"ended with exit code {code}", code=code)


def _told(events: Sequence[Event]) -> Judgement | None:
    """Who was waited for, or which node is unhealthy and why, if that was the cause."""
    for event in events:
        if event.event == "cause" and event.fields.get("why"):
            ranks = event.fields.get("ranks") or [None]
            code = HUNG if event.fields["cause"] == "hang" else UNHEALTHY
            return Judgement(state="failed", why=event.fields["why"], rank=ranks[0], code=code)
    return None


def _with_decision(judged: Judgement, end: dict[str, object]) -> Judgement:
    """A failed job on Slurm could have gone on: add why it does not."""
    why = str(end.get("why") or "")
    return replace(judged, why=f"{judged.why}; {why}") if "(restarts." in why else judged


def _requeued(why: str, probe: Probe) -> Judgement:
    """The attempt is over and its job was put back into the queue; the next has not begun."""
    if probe.job is None:
        return Judgement(state="unknown", why=probe.silence or f"{why}, but Slurm no longer knows the job")
    if probe.job.state in _QUEUED | _RUNNING:
        reason = f" (Slurm says {probe.job.reason})" if probe.job.reason else ""
        return Judgement(state="queued", why=why + reason)
    if probe.job.state in _CANCELLED:
        return Judgement(state="cancelled", why=_who_cancelled(False))
    return Judgement(state="failed", why=f"{why}, but Slurm says {probe.job.state} {probe.job.reason}".strip())


def _loudest(events: Sequence[Event], code: int | None) -> Judgement | None:
    """The first verdict that is not 0."""
    for event in events:
        if event.event == "verdict" and event.fields["code"]:
            rank = event.fields["rank"]
            why = f"rank {rank}: {event.fields['message'] or event.fields['code']}"
            return Judgement(state="failed", why=why, rank=rank, code=code or event.fields["code"])
    return None


def _by_slurm(events: Sequence[Event], job: JobInfo, cancelled: bool, shared: bool) -> Judgement:
    if job.state in _QUEUED:
        if cancelled and shared:  # the job waits for the other runs that share it
            return Judgement(state="cancelled", why=_who_cancelled(True))
        return Judgement(state="queued", why=f"Slurm says {job.reason}" if job.reason else "")
    if job.state in _RUNNING:
        return Judgement(state="running")
    if job.state in _CANCELLED or (cancelled and job.state in _FAILED):
        return Judgement(state="cancelled", why=_who_cancelled(cancelled))
    if job.state in _FAILED:
        told = _loudest(events, None)
        return told or Judgement(state="failed", why=f"Slurm says {job.state} {job.reason}".strip())
    return Judgement(state="unknown", why=f"Slurm says {job.state}, and no end was recorded")


def _by_verdicts(events: Sequence[Event], submit: dict[str, object], probe: Probe, cancelled: bool) -> Judgement:
    """No recorded end, and neither Slurm nor the process table has the run."""
    given = {event.fields["rank"]: event.fields["code"] for event in events if event.event == "verdict"}
    if len(given) == submit.get("world_size") and not any(given.values()):
        return Judgement(state="finished", code=0)
    if cancelled:
        return Judgement(state="cancelled", why=_who_cancelled(True))
    told = _loudest(events, None)
    if told is not None:
        return told
    if probe.alive is False:
        return Judgement(state="failed", why="its processes are gone without a word (killed, or the machine restarted)")
    return Judgement(state="unknown", why=probe.silence or "no end was recorded, and Slurm no longer knows the job")
