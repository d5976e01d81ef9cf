"""When a job would start: what sbatch of several versions says, and that no answer is "not known"."""

from pathlib import Path

import pytest

from trainwright.config.cluster import ClusterConfig
from trainwright.launchers.start_estimate import StartEstimate, parse_test_only, start_estimate

from .conftest import write_command

_SLURM = ClusterConfig(scheduler="slurm")
# 22.05.8 as recorded; the others by the format in the source of newer versions, and that of 17.02 for what it lacks.
_ANSWERS = {
    "22.05": (
        "sbatch: Job 1 to start at 2026-11-28T23:49:58 using 2 processors on nodes twdev0-node[1-2] "
        "in partition main\n",
        StartEstimate(time="2026-11-28T23:49:58", nodes="twdev0-node[1-2]", partition="main"),
    ),
    "preempting": (
        "sbatch: Job 9007 to start at 2026-12-01T04:00:00 using 768 processors on nodes gpu[001-004,7] "
        "in partition gpu\n"
        "sbatch:   Preempts: 8801,8802\n",
        StartEstimate(time="2026-12-01T04:00:00", nodes="gpu[001-004,7]", partition="gpu", preempts="8801,8802"),
    ),
    "submit plugin": (
        "sbatch: lua: your project has 12 hours left\n"
        "sbatch: Job 9007 to start at 2026-12-01T04:00:00 using 8 processors on nodes c1 in partition debug\n",
        StartEstimate(time="2026-12-01T04:00:00", nodes="c1", partition="debug"),
    ),
    "17.02": (
        "sbatch: Job 5 to start at 2016-12-01T04:00:00 using 8 processors on c1\n",
        StartEstimate(time="2016-12-01T04:00:00", nodes="c1"),
    ),
    "refused": (
        "allocation failure: Requested node configuration is not available\n",
        StartEstimate(time=None, why="allocation failure: Requested node configuration is not available"),
    ),
    "refused with a reason": (
        "sbatch: error: invalid partition specified: x\nallocation failure: Invalid partition name specified\n",
        StartEstimate(
            time=None, why="invalid partition specified: x; allocation failure: Invalid partition name specified"
        ),
    ),
    "no time": (
        "sbatch: Job 5 to start at Unknown using 8 processors on nodes c1 in partition a\n",
        StartEstimate(
            time=None, why="Job 5 to start at Unknown using 8 processors on nodes c1 in partition a"
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", _ANSWERS)
def test_what_sbatch_says(name: str) -> None:
    said, expected = _ANSWERS[name]
    assert parse_test_only(said) == expected


def test_the_script_is_handed_over_and_nothing_is_submitted(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "elsewhere")
    write_command(
        commands,
        "sbatch",
        f'echo "$*" >{tmp_path}/words; env >{tmp_path}/env; cat >{tmp_path}/script; echo "{_ANSWERS["17.02"][0]}" >&2',
    )
    assert start_estimate(_SLURM, "#!/bin/sh\nhello\n", 30.0).nodes == "c1"
    assert (tmp_path / "words").read_text() == "--test-only\n"
    assert (tmp_path / "script").read_text() == "#!/bin/sh\nhello\n"
    assert "SBATCH_PARTITION" not in (tmp_path / "env").read_text()


def test_no_answer_is_not_known(commands: Path) -> None:
    write_command(commands, "sbatch", "exec sleep 20")
    found = start_estimate(_SLURM, "", 0.2)
    assert found.time is None
    assert found.why.startswith("sbatch gave no answer")
    write_command(commands, "sbatch", "echo 'sbatch: error: Unable to contact slurm controller' >&2; exit 1")
    assert "Unable to contact" in start_estimate(_SLURM, "", 30.0).why
