"""What became of a run: from the ledger, Slurm and the process table. What nobody knows is unknown, never finished."""

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..config.loading import load_frozen
from ..config.rundir import RunDir
from ..tracking.ledger import Event, read_ledger
from .attempts import submission_of
from .processes import is_alive
from .slurm import JobInfo, Slurm, SlurmUnreachable, expand_hosts

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
    """The job's exit code: 93 if a rank reported a user's mistake."""


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """A run as it is now, by its newest attempt."""

    run: str
    state: State
    why: str
    attempt: int
    job_id: str | None
    pid: int | None
    step: int | None
    """Last finished step, or None before the first."""
    steps: int
    loss: float | None
    tokens_per_s: float | None
    nodes: list[str]
    failing_rank: int | None
    log: str | None
    """The log to read: the failing rank's, else rank 0's; None while there is none."""
    code: int | None = field(default=None)
    """The attempt's exit code, once it is over."""


def read_status(run: RunDir) -> RunStatus:
    """Look at ledger, metrics, Slurm (one squeue) or processes, and judge."""
    config = load_frozen(run.run_yaml)
    attempt = (run.attempts() or [0])[-1]
    events = events_of(read_ledger(run), attempt)
    submit = next((event.fields for event in events if event.event == "submit"), {})
    probe = _probe(submit, events, Slurm(config.cluster))
    judged = judge(events, probe)
    last = last_metrics(run)
    return RunStatus(
        run=str(run.path),
        state=judged.state,
        why=judged.why,
        attempt=attempt,
        job_id=submit.get("job_id"),
        pid=submit.get("pid"),
        step=last.get("step"),
        steps=config.train.steps,
        loss=last.get("loss"),
        tokens_per_s=last.get("tokens_per_s"),
        nodes=_nodes(events, probe),
        failing_rank=judged.rank,
        log=_log(run, attempt, judged.rank),
        code=judged.code,
    )


def events_of(events: Sequence[Event], attempt: int) -> list[Event]:
    """Events of one attempt, with the submission that it belongs to and what was asked of that since."""
    first, _ = submission_of(events, attempt)
    return [
        event
        for event in events
        if event.attempt == attempt or (first <= event.attempt < attempt and event.event in ("submit", "cancel"))
    ]


def judge(events: Sequence[Event], probe: Probe) -> Judgement:
    """The state of one attempt, from its events and what was found outside.

    A recorded end counts first, then what Slurm or the process table say, then the ranks' verdicts if all gave one.
    """
    submit = next((event.fields for event in events if event.event == "submit"), None)
    cancelled = any(event.event == "cancel" for event in events)
    end = next((event.fields for event in events if event.event == "exit" and event.writer == "supervisor"), None)
    if end is not None and end.get("requeued") and not cancelled:
        return _requeued(str(end.get("why", "")), probe)
    if end is not None:
        if end["code"] == 0:
            return Judgement(state="finished", code=0)
        if cancelled or end.get("slurm") == "cancelled":
            return Judgement(state="cancelled", why=_who_cancelled(cancelled), code=end["code"])
        return _with_decision(_failure(events, end), end)
    if submit is None:
        return Judgement(state="unknown", why="nothing was recorded after the attempt was claimed")
    if probe.job is not None:
        return _by_slurm(events, probe.job, cancelled)
    if probe.alive:
        return Judgement(state="running")
    return _by_verdicts(events, submit, probe, cancelled)


def last_metrics(run: RunDir) -> dict[str, Any]:
    """step, loss and tokens_per_s of the last whole line of the newest attempt that wrote one; empty if none did."""
    for attempt in reversed(run.attempts()):
        for line in reversed(_tail(run.metrics(attempt)).splitlines()):
            try:
                record = json.loads(line)
            except ValueError:  # torn: being written
                continue
            return {key: record[key] for key in ("step", "loss", "tokens_per_s") if record.get(key) is not None}
    return {}


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
        return Judgement(state="failed", why=why, rank=rank, code=code)
    if rank is not None and words.get(rank):
        return Judgement(state="failed", why=f"rank {rank}: {words[rank]}", rank=rank, code=code)
    if rank is not None:
        return Judgement(state="failed", why=f"rank {rank}: {how}, without a word of its own", rank=rank, code=code)
    return _loudest(events, code) or Judgement(state="failed", why=f"ended with exit code {code}", code=code)


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


def _by_slurm(events: Sequence[Event], job: JobInfo, cancelled: bool) -> Judgement:
    if job.state in _QUEUED:
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


def _probe(submit: dict[str, object], events: Sequence[Event], slurm: Slurm) -> Probe:
    if submit.get("scheduler") == "slurm":
        try:
            return Probe(job=slurm.jobs([str(submit["job_id"])]).get(str(submit["job_id"])))
        except SlurmUnreachable as error:
            return Probe(silence=f"no end was recorded, and Slurm does not answer ({error})")
    if not submit:
        return Probe()
    if submit["host"] != socket.gethostname():
        return Probe(silence=f"it runs on {submit['host']}; ask there")
    started = [event.fields for event in events if event.event == "start"]
    return Probe(
        alive=any(is_alive(int(str(who["pid"])), int(str(who["pid_start_time"]))) for who in [submit, *started])
    )


def _nodes(events: Sequence[Event], probe: Probe) -> list[str]:
    started = sorted((event.fields["rank"], event.fields["host"]) for event in events if event.event == "start")
    hosts = {host: None for _, host in started}
    return list(hosts) or (expand_hosts(probe.job.nodes) if probe.job else [])


def _log(run: RunDir, attempt: int, rank: int | None) -> str | None:
    for path in (run.rank_log(attempt, rank or 0), run.batch_log(attempt)):
        if path.exists() and path.stat().st_size:
            return str(path)
    return None


def _tail(path: Path, size: int = 65536) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - size))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
