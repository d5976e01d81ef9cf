"""Judging a run from its ledger, Slurm's word and the process table."""

from typing import Any

import pytest

from trainwright.launchers.judging import Judgement, Probe, State, judge
from trainwright.launchers.slurm import JobInfo
from trainwright.tracking.ledger import Event


def _events(*lines: tuple[str, str, dict[str, Any]]) -> list[Event]:
    """Events from (writer, event, fields), a second apart."""
    return [
        Event(time=float(number), event=event, writer=writer, attempt=1, fields=fields)
        for number, (writer, event, fields) in enumerate(lines)
    ]


_SUBMIT = ("submit", "submit", {"scheduler": "slurm", "job_id": "7", "world_size": 2})
_CANCEL = ("cancel-login-1", "cancel", {"user": 1000})


def _verdict(rank: int, code: int, message: str = "") -> tuple[str, str, dict[str, Any]]:
    return (f"rank-{rank:05d}", "verdict", {"rank": rank, "code": code, "message": message})


def _exit(code: int, **fields: Any) -> tuple[str, str, dict[str, Any]]:
    return ("supervisor", "exit", {"code": code, "signal": "", "message": "", "failure": None, "slurm": None, **fields})


def _slurm(state: str, reason: str = "") -> Probe:
    return Probe(job=JobInfo(state=state, reason=reason))


@pytest.mark.parametrize(
    ("lines", "probe", "state", "why"),
    [
        ([], Probe(), "unknown", "nothing was recorded after the attempt was claimed"),
        ([_SUBMIT], _slurm("PENDING", "Priority"), "queued", "Slurm says Priority"),
        ([_SUBMIT], _slurm("RUNNING"), "running", ""),
        ([_SUBMIT, _verdict(0, 0), _verdict(1, 0)], _slurm("COMPLETING"), "running", ""),
        ([_SUBMIT, _exit(0)], _slurm("COMPLETED"), "finished", ""),
        ([_SUBMIT, _exit(0)], Probe(silence="no answer"), "finished", ""),
        ([_SUBMIT, _verdict(0, 0), _verdict(1, 0)], Probe(), "finished", ""),
        ([_SUBMIT, _verdict(0, 0)], Probe(), "unknown", "no end was recorded, and Slurm no longer knows the job"),
        ([_SUBMIT, _verdict(0, 0)], Probe(silence="Slurm does not answer"), "unknown", "Slurm does not answer"),
        ([_SUBMIT], Probe(alive=True, silence="no answer, but it writes"), "running", "no answer, but it writes"),
        ([_SUBMIT], _slurm("COMPLETED"), "unknown", "Slurm says COMPLETED, and no end was recorded"),
        ([_SUBMIT], _slurm("SOMETHING_NEW"), "unknown", "Slurm says SOMETHING_NEW, and no end was recorded"),
        ([_SUBMIT], _slurm("NODE_FAIL"), "failed", "Slurm says NODE_FAIL"),
        ([_SUBMIT, _verdict(1, 1, "oops")], _slurm("FAILED"), "failed", "rank 1: oops"),
        ([_SUBMIT], _slurm("CANCELLED"), "cancelled", "cancelled by somebody with scancel"),
        ([_SUBMIT, _CANCEL], _slurm("CANCELLED"), "cancelled", "cancelled by `trainwright cancel`"),
        ([_SUBMIT, _CANCEL], Probe(), "cancelled", "cancelled by `trainwright cancel`"),
        ([_SUBMIT, _CANCEL, _exit(143, signal="TERM")], Probe(), "cancelled", "cancelled by `trainwright cancel`"),
        ([_SUBMIT, _CANCEL, _exit(0)], Probe(), "finished", ""),
        ([_SUBMIT, _exit(143, signal="TERM", slurm="cancelled")], Probe(), "cancelled", "by somebody with scancel"),
        ([_SUBMIT, _exit(143, signal="TERM", slurm="time limit")], Probe(), "failed", "ended by Slurm: time limit"),
        ([_SUBMIT, _exit(143, signal="TERM")], Probe(), "failed", "ended by SIGTERM, which did not come from"),
        ([_SUBMIT, _exit(1, message="module load failed")], Probe(), "failed", "module load failed"),
        ([_SUBMIT], Probe(alive=True), "running", ""),
        ([_SUBMIT], Probe(alive=False), "failed", "its processes are gone without a word"),
        ([_SUBMIT, _verdict(0, 0), _verdict(1, 0)], Probe(alive=False), "finished", ""),
    ],
)
def test_state(lines: list[tuple[str, str, dict[str, Any]]], probe: Probe, state: State, why: str) -> None:
    judged = judge(_events(*lines), probe)
    assert judged.state == state
    assert why in judged.why
    assert bool(why) == bool(judged.why)


def test_the_rank_that_failed_first_is_named_not_those_it_took_along() -> None:
    died = {"rank": 1, "host": "node1", "how": "Killed"}
    lines = [_SUBMIT, _verdict(0, 1, "Connection closed by peer"), _exit(137, failure=died)]
    expected = Judgement(state="failed", why="rank 1: Killed, without a word of its own", rank=1, code=137)
    assert judge(_events(*lines), Probe()) == expected


def test_a_users_mistake_keeps_its_words_and_its_code() -> None:
    failed = {"rank": 0, "host": "node1", "how": "Exited with exit code 93"}
    words = "data.train.0.store: /x is not there; build it"
    lines = [_SUBMIT, _verdict(0, 93, words), _verdict(1, 93, words), _exit(93, failure=failed)]
    assert judge(_events(*lines), Probe()) == Judgement(state="failed", why=f"rank 0: {words}", rank=0, code=93)
