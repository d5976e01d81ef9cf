"""What the end of a job means, from srun's words and the ranks' verdicts."""

import pytest

from trainwright.launchers.supervisor import Failure, first_failure, meaning, slurm_reason

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
_SCANCEL = "slurmstepd: error: *** JOB 3 ON n1 CANCELLED AT 2026-11-24T06:01:57 ***\n"


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


@pytest.mark.parametrize(("log", "reason"), [("", None), (_LIMIT, "time limit"), (_SCANCEL, "cancelled")])
def test_slurm_reason(log: str, reason: str | None) -> None:
    assert slurm_reason(log) == reason


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
def test_meaning(step_code: int, verdicts: dict[int, int], failed_rank: int | None, code: int) -> None:
    failure = None if failed_rank is None else Failure(rank=failed_rank, host="n", how="")
    assert meaning(step_code, verdicts, failure) == code
