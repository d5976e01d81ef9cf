"""What became of a run: from the ledger, Slurm and the process table. What nobody knows is unknown, never finished."""

import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.cluster import ClusterConfig
from ..config.loading import load_frozen
from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..tracking.ledger import Event, read_ledger
from .attempts import submission_of
from .judging import Probe, State, is_over, judge
from .processes import is_alive
from .slurm import JobInfo, Slurm, SlurmUnreachable, expand_hosts
from .snapshot import describe

_HEARD_OF_S = 60.0
"""A rank that wrote so lately is taken to be alive, where Slurm does not answer."""


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
    snapshot: dict[str, Any] = field(default_factory=dict)
    """What it is made of: sha256, commit, whether there were uncommitted changes, and the patch that has them."""
    preflight: dict[str, Any] | None = field(default=None)
    """What the checks before the first step found; None if there were none yet."""
    then: dict[str, Any] | None = field(default=None)
    """Slurm jobs that follow once it has finished: export_job, serve_job, and endpoint, the name of that."""
    guards: list[str] = field(default_factory=list)
    """What the guards found in this attempt, a line for each kind."""


@dataclass(frozen=True, kw_only=True)
class _Newest:
    """A run's newest attempt, as its directory has it."""

    run: RunDir
    config: RunConfig
    attempt: int
    events: list[Event]

    @staticmethod
    def of(run: RunDir) -> "_Newest":
        attempt = (run.attempts() or [0])[-1]
        config = load_frozen(run.run_yaml)
        return _Newest(run=run, config=config, attempt=attempt, events=events_of(read_ledger(run), attempt))

    @property
    def submit(self) -> dict[str, Any]:
        return next((event.fields for event in self.events if event.event == "submit"), {})

    @property
    def job_to_ask_for(self) -> str | None:
        """The Slurm job whose state the ledger does not tell; None if there is nothing to ask."""
        known = self.submit.get("scheduler") != "slurm" or is_over(self.events)
        return None if known else str(self.submit["job_id"])


def read_status(run: RunDir) -> RunStatus:
    """Look at ledger, metrics, Slurm (one squeue at most) or processes, and judge."""
    return read_statuses([run])[0]


def read_statuses(runs: Sequence[RunDir]) -> list[RunStatus]:
    """The same for many runs, with one squeue for all jobs of a cluster whose end no ledger knows."""
    newest = [_Newest.of(run) for run in runs]
    return [_judged(one, probe) for one, probe in zip(newest, _probes(newest), strict=True)]


def _judged(newest: _Newest, probe: Probe) -> RunStatus:
    run, attempt, submit = newest.run, newest.attempt, newest.submit
    judged = judge(newest.events, probe)
    last = last_metrics(run)
    return RunStatus(
        run=str(run.path),
        state=judged.state,
        why=judged.why,
        attempt=attempt,
        job_id=submit.get("job_id"),
        pid=submit.get("pid"),
        step=last.get("step"),
        steps=newest.config.train.steps,
        loss=last.get("loss"),
        tokens_per_s=last.get("tokens_per_s"),
        nodes=_nodes(newest.events, probe),
        failing_rank=judged.rank,
        log=_log(run, attempt, judged.rank),
        code=judged.code,
        snapshot=describe(run),
        preflight=_fields_of(newest.events, "preflight"),
        then=_fields_of(newest.events, "followers"),
        guards=guard_words(newest.events),
    )


def events_of(events: Sequence[Event], attempt: int) -> list[Event]:
    """Events of one attempt, with the submission that it belongs to and what was asked of that since."""
    first, _ = submission_of(events, attempt)
    return [
        event
        for event in events
        if event.attempt == attempt
        or (first <= event.attempt < attempt and event.event in ("submit", "cancel", "followers"))
    ]


def guard_words(events: Sequence[Event]) -> list[str]:
    """What the run's guards found, a line for each kind and action, with the last step; then slow ranks."""
    found: dict[str, list[Event]] = {}
    for event in events:
        if event.event == "guard":
            found.setdefault(f"{event.fields['kind'].replace('_', '-')} ({event.fields['action']})", []).append(event)
        if event.event == "straggler":
            found.setdefault(f"slow rank {event.fields['straggler']} on {event.fields['host']}", []).append(event)
    return [
        f"{kind}: {len(each)} x, last at step {each[-1].fields['step']}: {each[-1].fields['words']}"
        for kind, each in found.items()
    ]


def _fields_of(events: Sequence[Event], name: str) -> dict[str, Any] | None:
    return next((event.fields for event in events if event.event == name), None)


def last_metrics(run: RunDir) -> dict[str, Any]:
    """step, loss and tokens_per_s of the last whole line of the newest attempt that wrote one; empty if none did."""
    for attempt in reversed(run.attempts()):
        for line in reversed(_tail(run.metrics(attempt)).splitlines()):
            try:
                record = json.loads(line)
            except ValueError:  # torn: being written
                continue
            if "step" not in record:  # of a rollback
                continue
            return {key: record[key] for key in ("step", "loss", "tokens_per_s") if record.get(key) is not None}
    return {}


def _probes(newest: Sequence[_Newest]) -> list[Probe]:
    """What is found outside of the ledgers."""
    clusters: dict[str | None, tuple[ClusterConfig, list[str]]] = {}
    for one in newest:
        if one.job_to_ask_for is not None:
            cluster = one.config.cluster
            clusters.setdefault(cluster.slurm_conf, (cluster, []))[1].append(one.job_to_ask_for)
    answers = {conf: _ask(Slurm(cluster), job_ids) for conf, (cluster, job_ids) in clusters.items()}
    return [_probe(one, answers) for one in newest]


def _ask(slurm: Slurm, job_ids: Sequence[str]) -> dict[str, JobInfo] | str:
    """What Slurm knows of jobs, or why it does not answer."""
    try:
        return slurm.jobs(job_ids)
    except SlurmUnreachable as error:
        return str(error)


def _probe(newest: _Newest, answers: Mapping[str | None, dict[str, JobInfo] | str]) -> Probe:
    submit = newest.submit
    if newest.job_to_ask_for is not None:
        answer = answers[newest.config.cluster.slurm_conf]
        if isinstance(answer, str):
            return _without_slurm(newest, answer)
        return Probe(job=answer.get(newest.job_to_ask_for))
    if not submit or is_over(newest.events):
        return Probe()
    if submit["host"] != socket.gethostname():
        return Probe(silence=f"it runs on {submit['host']}; ask there")
    started = [event.fields for event in newest.events if event.event == "start"]
    return Probe(
        alive=any(is_alive(int(str(who["pid"])), int(str(who["pid_start_time"]))) for who in [submit, *started])
    )


def _without_slurm(newest: _Newest, answer: str) -> Probe:
    """The controller may be starting again: ranks that write are alive all the same."""
    silence = f"no end was recorded, and Slurm does not answer ({answer})"
    age_s = time.time() - _last_written(newest.run, newest.attempt)
    if age_s > _HEARD_OF_S or not _some_rank_is_left(newest.events):
        return Probe(silence=silence)
    words = f"Slurm does not answer ({answer}), but its ranks wrote {max(0.0, age_s):.0f} s ago"
    return Probe(alive=True, silence=words)


def _some_rank_is_left(events: Sequence[Event]) -> bool:
    ranks = {name: {event.fields["rank"] for event in events if event.event == name} for name in ("start", "verdict")}
    return bool(ranks["start"] - ranks["verdict"])


def _last_written(run: RunDir, attempt: int) -> float:
    """When metrics, heartbeat, GPU numbers or a rank's log of the attempt were last written, in epoch seconds."""
    paths = [run.metrics(attempt), run.heartbeat(attempt), *run.attempt_logs(attempt).glob("[0-9]*.log")]
    paths += run.telemetry.glob(f"gpus-{attempt:04d}-*")
    return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)


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
