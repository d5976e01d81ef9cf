"""Ranks whose peers' node is dead leave, though their main thread waits where no handler of Python's runs."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainwright.config.cluster import ClusterConfig
from trainwright.config.rundir import RunDir
from trainwright.launchers.lost_nodes import is_superseded, start_soon

from .conftest import write_command

# A lock that is taken twice: the second call never returns, whatever signals there are.
_RANK = """
import ctypes, os, sys, time
from pathlib import Path
from trainwright.config.cluster import ClusterConfig
from trainwright.config.rundir import RunDir
from trainwright.launchers.lost_nodes import LostNodes
from trainwright.launchers.rendezvous import Place
from trainwright.launchers.stop_signals import StopSignals

def leave(why):
    print(f"{why} at {time.time()}", flush=True)
    os._exit(7)

StopSignals()
rank = int(sys.argv[2])
place = Place(rank=rank, world_size=4, local_rank=rank % 2, local_world_size=2, hosts=["n1", "n2"], job_id="7")
with LostNodes(RunDir(Path(sys.argv[1])), 1, place, ClusterConfig(), leave):
    print("ready", flush=True)
    lock, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    for _ in range(2):
        libc.pthread_mutex_lock(lock)
"""


def _rank(run: RunDir, rank: int) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", _RANK, run.path, str(rank)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    return process


@pytest.fixture
def run(tmp_path: Path, commands: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.next_attempt()
    write_command(
        commands,
        "scontrol",
        f'echo "$*" >>{tmp_path}/asked; [ "$1" != show ] || printf "KillWait = 40 sec\\nTCPTimeout = 4 sec\\n"',
    )
    return run


def test_the_second_nodes_first_rank_stands_in_for_a_dead_batch_host(
    run: RunDir, commands: Path, tmp_path: Path
) -> None:
    write_command(commands, "sinfo", "printf 'n1 down*\\nn2 completing\\n'")
    other, deputy = _rank(run, 3), _rank(run, 2)
    left = []
    for process in (other, deputy):
        said, _ = process.communicate(timeout=30)
        assert (process.returncode, said.partition(" at ")[0]) == (7, "Slurm has given up a node of this job: n1")
        left.append(float(said.partition(" at ")[2]))
    assert abs(left[0] - left[1]) < 0.3, "at the same moment: each that leaves later holds the job up"
    assert (tmp_path / "asked").read_text().splitlines() == [
        "show config",
        "update JobId=7 StartTime=now+36seconds",  # six tries of 4 s, and slurmd may look ten seconds later
        "update JobId=7 ExcNodeList=",
    ]


@pytest.mark.parametrize("states", ["n1 mixed\\nn2 mixed", "n1 mixed*\\nn2 mixed", "n1 mixed\\nn2 down"])
def test_a_living_batch_host_is_left_its_business(states: str, run: RunDir, commands: Path, tmp_path: Path) -> None:
    write_command(commands, "sinfo", f"printf '{states}\\n'; touch {tmp_path}/looked")
    deputy = _rank(run, 2)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            deputy.communicate(timeout=3)
    finally:
        deputy.kill()
        deputy.communicate()
    assert (tmp_path / "looked").exists()
    assert not (tmp_path / "asked").exists()


def test_a_job_that_lives_on_is_not_told_of_dead_nodes(run: RunDir, commands: Path, tmp_path: Path) -> None:
    start_soon(run, 1, ClusterConfig(), "7", [])
    assert (tmp_path / "asked").read_text().splitlines() == [
        "show config",
        "update JobId=7 StartTime=now+45seconds",
        "update JobId=7 ExcNodeList=",
    ]
    write_command(commands, "scontrol", "echo 'Job is no longer pending execution' >&2; exit 1")
    start_soon(run, 1, ClusterConfig(), "7", ["n1"])
    assert not run.lost_nodes(1).exists()


def test_what_comes_back_with_a_node_says_nothing(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    assert not is_superseded(run, 1)
    run.lost_nodes(1).write_text("n10\nn2\n")
    assert not is_superseded(run, 1)
    run.lost_nodes(1).write_text("n2\nn1\n")
    assert is_superseded(run, 1)
    run.lost_nodes(1).unlink()
    run.next_attempt()
    assert is_superseded(run, 1)
    assert not is_superseded(run, 2)
