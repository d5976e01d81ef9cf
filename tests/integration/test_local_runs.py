"""Runs on this machine: they outlive the shell, end together, and say how they ended."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainwright.config.errors import FoundBad, UserError
from trainwright.config.loading import load_run
from trainwright.config.rundir import RunDir
from trainwright.launchers.another_attempt import continue_run
from trainwright.launchers.cancel import cancel_run
from trainwright.launchers.follow import wait_for_end
from trainwright.launchers.processes import group_members, wait_until
from trainwright.launchers.status import read_status
from trainwright.launchers.submission import Submitted, submit_run
from trainwright.storage.checkpoints.manifest import read_manifest
from trainwright.tracking.ledger import read_ledger

pytestmark = pytest.mark.ranks
_LONG = ("train.steps=1000000",)


@pytest.fixture
def long_run(trainable: Path) -> Iterator[Submitted]:
    """A run of two ranks, both started, that would go on for days."""
    submitted = submit_run(load_run(trainable, _LONG), source=trainable)
    try:
        assert wait_until(lambda: len(_starts(submitted.run_dir)) == 2, 90, every_s=0.1)
        yield submitted
    finally:
        cancel_run(submitted.run_dir)


def _starts(run: RunDir) -> dict[int, dict[str, Any]]:
    return {event.fields["rank"]: event.fields for event in read_ledger(run) if event.event == "start"}


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}/exe").exists()


def test_it_outlives_the_shell_that_submitted_it_and_cancel_ends_it(trainable: Path) -> None:
    command = [sys.executable, "-m", "trainwright.cli.main", "submit", str(trainable), *_LONG, "--json"]
    shell = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, start_new_session=True)
    submitted = json.loads(shell.stdout)
    run = RunDir(Path(submitted["run"]))
    assert wait_until(lambda: len(_starts(run)) == 2, 90, every_s=0.1)
    assert os.getsid(submitted["pid"]) == submitted["pid"]  # no terminal's end reaches it
    assert read_status(run).state == "running"
    assert cancel_run(run).state == "cancelled"
    assert group_members(submitted["pid"]) == []
    assert cancel_run(run).state == "cancelled"


def test_one_killed_rank_ends_the_other_within_seconds(long_run: Submitted) -> None:
    ranks = _starts(long_run.run_dir)
    os.kill(ranks[1]["pid"], signal.SIGKILL)
    assert wait_until(lambda: not _lives(ranks[0]["pid"]), 15)
    now = wait_for_end(long_run.run_dir, lambda _: None)
    assert (now.state, now.failing_rank, now.code) == ("failed", 1, 137)
    assert now.why == "rank 1: Killed, without a word of its own"


def test_without_its_controller_it_runs_and_can_be_cancelled(long_run: Submitted) -> None:
    assert long_run.pid is not None
    os.kill(long_run.pid, signal.SIGKILL)
    assert wait_until(lambda: not _lives(long_run.pid or 0), 10)
    assert read_status(long_run.run_dir).state == "running"
    assert cancel_run(long_run.run_dir).state == "cancelled"
    assert group_members(long_run.pid) == []


def test_all_killed_at_once_is_a_failure_without_a_word(long_run: Submitted) -> None:
    assert long_run.pid is not None
    os.killpg(long_run.pid, signal.SIGKILL)
    assert wait_until(lambda: not group_members(long_run.pid or 0), 10)
    now = read_status(long_run.run_dir)
    assert (now.state, now.code) == ("failed", None)
    assert "gone without a word" in now.why


def test_a_recycled_process_id_is_not_ours(long_run: Submitted) -> None:
    """The ledger's process id now belongs to somebody else: it must be neither seen as the run nor killed."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        try:
            ended = RunDir(long_run.run_dir.path.with_name("recycled"))
            shutil.copytree(long_run.run_dir.path, ended.path)
            for path in ended.ledger.glob("*/*.jsonl"):
                line = json.loads(path.read_text().splitlines()[0])
                path.write_text(json.dumps({**line, "pid": stranger.pid, "pgid": stranger.pid}) + "\n")
            assert read_status(ended).state == "failed"
            cancel_run(ended)
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_time_limit_holds_here_too(trainable: Path) -> None:
    run = load_run(trainable, [*_LONG, "cluster.time_limit=0:03"])
    now = wait_for_end(submit_run(run, source=trainable).run_dir, lambda _: None)
    assert (now.state, now.why) == ("failed", "time limit 0:03 reached")


def test_a_ranks_user_error_is_one_line_and_exit_2(trainable: Path) -> None:
    """The store vanishes after submit has checked it, before the ranks open it."""
    store = trainable.parent / "store.zarr"
    runs = trainable.parent / "runs"

    def vanish() -> None:
        wait_until(lambda: any(runs.glob("*/ledger/*/submit.jsonl")), 60, every_s=0.01)
        store.rename(store.with_name("elsewhere"))

    thread = threading.Thread(target=vanish)
    thread.start()
    command = [sys.executable, "-m", "trainwright.cli.main", "submit", str(trainable), "--wait"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    thread.join()
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert str(store) in last
    assert "Traceback" not in done.stderr
    verdicts = [event.fields["code"] for event in read_ledger(RunDir(runs / "tiny")) if event.event == "verdict"]
    assert 93 in verdicts


def test_another_attempt_goes_on_with_the_snapshot(trainable: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = submit_run(load_run(trainable), source=trainable)
    assert wait_for_end(first.run_dir, lambda _: None).state == "finished"
    rank_file = first.run_dir.code / "trainwright" / "launchers" / "rank.py"
    before = rank_file.read_text()
    rank_file.chmod(0o644)
    rank_file.write_text(before + '\nprint("this is not what was submitted", flush=True)\n')
    with pytest.raises(FoundBad, match=r"launchers/rank\.py: was changed after the run was submitted"):
        continue_run(first.run_dir, ["train.steps=6"])
    rank_file.write_text(before)
    with pytest.raises(UserError, match=r"^data\.stages: change what 512 tokens of this run were read by, from 480 on"):
        continue_run(first.run_dir, ["data.stages=[{until_tokens: 480}, {}]"])
    capfd.readouterr()
    second = continue_run(
        first.run_dir, ["train.steps=6", "parallelism.tensor=2", "data.stages=[{until_tokens: 640}, {}]"]
    )
    assert "data.stages: other samples from position 20 (640 tokens) on\n" in capfd.readouterr().err
    assert second.attempt == 2
    now = wait_for_end(first.run_dir, lambda _: None)
    assert (now.state, now.attempt, now.step, now.steps) == ("finished", 2, 6, 6)
    digests = [event.fields["snapshot"] for event in read_ledger(first.run_dir) if event.event == "submit"]
    manifests = [read_manifest(first.run_dir.checkpoint(step)) for step in (4, 6)]
    assert digests == [manifest.snapshot_digest for manifest in manifests] == [now.snapshot["sha256"]] * 2
    with pytest.raises(UserError, match=r"^data\.stages: change what 768 tokens of this run were read by, from 640 on"):
        continue_run(first.run_dir, ["data.stages=[]"])
    with pytest.raises(UserError, match=r"^data\.seed: 7, but the run was started with 1234; start a new run"):
        continue_run(first.run_dir, ["data.seed=7"])
    assert first.run_dir.attempts() == [1, 2]


def test_a_running_run_cannot_be_started_again(long_run: Submitted) -> None:
    with pytest.raises(UserError, match="is running; wait for it, or `trainwright cancel"):
        continue_run(long_run.run_dir, [])
    assert long_run.run_dir.attempts() == [1]
