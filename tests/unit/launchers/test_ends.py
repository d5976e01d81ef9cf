"""Why an attempt ended, from srun's words, Slurm's words, the ranks' verdicts and the signal that was caught."""

from datetime import datetime
from typing import Any

import pytest

from trainwright.launchers.ends import (
    EndFacts,
    Failure,
    cause_of,
    code_of,
    codes_by_srun,
    failed_nodes,
    first_failure,
    slurm_reason,
    words_since,
)
from trainwright.launchers.scontrol import JobDetails, parse_job

_KILLED = """\
srun: error: node1: task 1: Killed
srun: launch/slurm: _step_signal: Terminating StepId=2.0
srun: error: node1: task 0: Terminated
srun: error: node2: tasks 2-3: Terminated
"""
_LATE = """\
srun: error: node2: tasks 2-3: Terminated
srun: error: node1: task 1: Exited with exit code 93
"""
_LIMIT = "slurmstepd-n1: error: *** JOB 5 ON n1 CANCELLED AT 2026-11-24T06:05:03 DUE TO TIME LIMIT ***\n"
_PREEMPTED = "slurmstepd-n1: error: *** STEP 5.0 ON n1 CANCELLED AT 2026-11-24T06:05:03 DUE TO PREEMPTION ***\n"
_SCANCEL = "slurmstepd: error: *** JOB 3 ON n1 CANCELLED AT 2026-11-24T06:01:57 ***\n"
_STEP_ENDED = "slurmstepd: error: *** STEP 3.0 ON n1 CANCELLED AT 2026-11-24T06:01:57 ***\n"
_NODE = "srun: error: Node failure on n2\nsrun: error: n1: tasks 0-1: Killed\n"


@pytest.mark.parametrize(
    ("log", "failure"),
    [
        ("", None),
        ("hello\n", None),
        (_KILLED, Failure(rank=1, host="node1", how="Killed")),
        (_LATE, Failure(rank=1, host="node1", how="Exited with exit code 93")),
        ("srun: error: n: tasks 4,6-7: Terminated\n", Failure(rank=4, host="n", how="Terminated")),
        ("controller: error: laptop: task 0: Killed\n", Failure(rank=0, host="laptop", how="Killed")),
    ],
)
def test_first_failure(log: str, failure: Failure | None) -> None:
    assert first_failure(log) == failure


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("", None),
        (_LIMIT, "time limit"),
        (_PREEMPTED, "preemption"),
        (_SCANCEL, "cancelled"),
        (_STEP_ENDED, None),  # srun ends a step when one of its ranks has failed
        (_SCANCEL + _LIMIT, "time limit"),
    ],
)
def test_slurm_reason(log: str, reason: str | None) -> None:
    assert slurm_reason(log) == reason


def test_what_slurm_said_of_earlier_attempts_is_not_of_this_one() -> None:
    began = datetime.fromisoformat("2026-11-24T06:03:00.5").timestamp()
    assert words_since(_SCANCEL + "hello\n" + _PREEMPTED, began) == _PREEMPTED.partition(": ")[2]
    assert slurm_reason(words_since(_PREEMPTED + _SCANCEL, began)) == "preemption"
    assert words_since(_SCANCEL, began) == ""


def test_codes_that_only_srun_saw() -> None:
    log = "srun: error: n1: tasks 1,4-6: Exited with exit code 86\nsrun: error: n2: task 7: Exited with exit code 1\n"
    assert codes_by_srun(log) == {1: 86, 4: 86, 5: 86, 6: 86}
    assert failed_nodes(_NODE) == ["n2"]


@pytest.mark.parametrize(
    ("step_code", "verdicts", "failed_rank", "code"),
    [
        (0, {0: 0, 1: 0}, None, 0),
        (143, {0: 93}, 0, 93),  # the others were ended by SIGTERM, which is a larger code
        (137, {0: 1}, 1, 137),  # the rank that failed first left no verdict
        (0, {0: 85, 1: 85}, None, 85),
        (1, {}, None, 1),
    ],
)
def test_code(step_code: int, verdicts: dict[int, int], failed_rank: int | None, code: int) -> None:
    failure = None if failed_rank is None else Failure(rank=failed_rank, host="n", how="")
    facts = EndFacts(step_code=step_code, verdicts=verdicts, world_size=2)
    assert code_of(facts, failure) == code


def _job(state: str = "RUNNING", ends_in: float = 9e9, preempted: bool = False) -> JobDetails:
    return JobDetails(state=state, ends_at=1000 + ends_in, preempted=preempted, requeues=True)


_SAVED = {0: 85, 1: 85}


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"verdicts": {0: 0, 1: 0}}, "finished"),
        ({"verdicts": {0: 0, 1: 0}, "cancelled": True}, "finished"),
        ({"verdicts": _SAVED, "cancelled": True}, "cancelled"),
        ({"job": _job("CANCELLED")}, "cancelled"),
        ({"batch_log": _SCANCEL}, "cancelled"),
        ({"message": "module load failed"}, "crash"),
        ({"batch_log": _NODE}, "node failure"),
        ({"job": _job("NODE_FAIL")}, "node failure"),
        ({"verdicts": {0: 93}}, "mistake"),
        ({"verdicts": {0: 88, 1: 88}}, "full disk"),
        ({"verdicts": {0: 1, 1: 86}}, "unhealthy node"),
        ({"verdicts": {0: 87, 1: 1}}, "hang"),
        ({"verdicts": _SAVED, "signal": "USR2", "job": _job(preempted=True)}, "preemption"),
        ({"verdicts": _SAVED, "batch_log": _PREEMPTED}, "preemption"),
        ({"verdicts": _SAVED, "at_limit": True}, "time limit"),
        ({"verdicts": _SAVED, "signal": "USR2", "job": _job(ends_in=100)}, "time limit"),
        ({"verdicts": _SAVED, "signal": "USR2", "job": _job(ends_in=3000)}, "asked"),
        ({"verdicts": _SAVED}, "asked"),
        ({"batch_log": _LIMIT}, "time limit"),
        ({"signal": "LIMIT", "batch_log": "srun: error: n1: tasks 0-1: Killed\n"}, "time limit"),
        ({"job": _job("TIMEOUT")}, "time limit"),
        ({"batch_log": _KILLED}, "crash"),
        ({"batch_log": _KILLED, "job": _job(ends_in=100)}, "crash"),
        ({"signal": "TERM", "batch_log": "srun: error: n1: tasks 0-1: Terminated\n"}, "asked"),
        ({"verdicts": {0: 1}}, "crash"),
        ({}, "crash"),
    ],
)
def test_cause(fields: dict[str, Any], cause: str) -> None:
    facts = EndFacts(**{"step_code": 1, "verdicts": {}, "world_size": 2, "now": 1000.0, **fields})
    assert cause_of(facts) == cause


def test_what_scontrol_says_of_a_job() -> None:
    line = (
        "JobId=7 JobName=tiny UserId=me(1000) JobState=COMPLETING Reason=None Requeue=1 Restarts=2 TimeLimit=00:10:00 "
        "EndTime=2026-11-28T20:10:00 PreemptEligibleTime=2026-11-28T20:00:00 PreemptTime=None NodeList=n[1-2] "
        "ExcNodeList=n9 Command=/a/b.sh\n"
    )
    job = parse_job(line)
    assert (job.state, job.requeues, job.preempted) == ("COMPLETING", True, False)
    assert job.ends_at is not None
    taken = parse_job(
        line.replace("PreemptTime=None", "PreemptTime=2026-11-28T20:05:00").replace("2026-11-28T20:10:00", "Unknown")
    )
    assert taken.preempted
    assert taken.ends_at is None
    assert not parse_job("JobId=7 JobState=PENDING PreemptTime=None").requeues
