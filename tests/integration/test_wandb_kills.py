"""SIGKILL at random moments over several attempts: one history in W&B, no step twice, at most a second lost.

The real Recorder with the real W&B in a process that trains nothing. What each attempt left, and what `sync` sent in
the end, are read with W&B's own reader; what arrived is what the server on loopback has.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from trainwright.config.loading import load_run
from trainwright.config.rundir import RunDir, create_run_dir
from trainwright.tracking.recorder import read_attempts, read_metrics
from trainwright.tracking.wandb_log import stable_wandb_id

from ..unit.tracking.wandb_files import fragments, of_kind, read_back
from ..unit.tracking.wandb_server import KEY, WandbServer
from .real_runs import WHOLE

RUNS, ATTEMPTS = (20, 5) if WHOLE else (1, 5)
_MOST_LOST_S = 1.0  # by W&B's offline file, once it has been begun; nothing is lost in the metrics file
_SLACK_S = 0.5  # a second of W&B's timer is not always a second on a busy machine

_TRAIN = """
import sys, time
from pathlib import Path
from trainwright.config.loading import load_frozen
from trainwright.config.rundir import RunDir
from trainwright.tracking.recorder import Recorder, StepRecord
run_dir, attempt, step = RunDir(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
recorder = Recorder(load_frozen(run_dir.run_yaml), run_dir, attempt, console=False)
while True:
    step += 1
    recorder.step(StepRecord(step=step, loss=attempt + 1 / step, grad_norm=1.0, lr=1.0, tokens=1, seconds=0.02))
    time.sleep(0.02)
"""

# `sync`, whose temporary folder (W&B's record of what it was told) is kept.
_SYNC = """
import contextlib, sys, types
from pathlib import Path
from trainwright.cli.main import main
from trainwright.tracking import sync
Path(sys.argv[1]).mkdir(exist_ok=True)
sync.tempfile = types.SimpleNamespace(TemporaryDirectory=lambda prefix: contextlib.nullcontext(sys.argv[1]))
sys.exit(main(["sync", sys.argv[2], "--json"]))
"""


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("WANDB")} | more


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the process and all that it started, as Slurm does with a job."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(fields[1])
    mine = [process.pid]
    for pid in mine:
        mine += [child for child, parent in parents.items() if parent == pid]
    for pid in mine:
        os.kill(pid, signal.SIGKILL)
    process.wait()


def moments(draw: random.Random) -> list[float]:
    """Seconds after the first step when each attempt is killed: one in each fifth of six seconds, in any order.

    W&B needs some two of them to begin its file.
    """
    found = [0.1 + 6.0 * (number + draw.random()) / ATTEMPTS for number in range(ATTEMPTS)]
    draw.shuffle(found)
    return found


def train_and_kill(run_dir: RunDir, start: int, moment_s: float, draw: random.Random) -> int:
    """One attempt from a step on, killed; the step from which the next one goes on."""
    attempt = run_dir.next_attempt()
    command = [sys.executable, "-c", _TRAIN, str(run_dir.path), str(attempt), str(start)]
    process = subprocess.Popen(command, env=environment(WANDB_SILENT="true"))
    try:
        deadline = time.monotonic() + 60
        while not run_dir.metrics(attempt).exists():  # started: from here any moment is as good
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(moment_s)
    finally:
        kill(process)
    steps = [line["step"] for line in read_attempts(run_dir)[attempt]]
    return draw.randint(max(start, steps[-1] - 60), steps[-1]) if steps else start  # its newest checkpoint


def check_fragments(run_dir: RunDir) -> tuple[list[float], int]:
    """Seconds that each attempt's W&B file lost, by its own reader, and how many were killed before it was begun."""
    kept = {}
    for path in fragments(run_dir):
        items = [each["item"] for each in of_kind(read_back(path, run_dir.path), "history")]
        if items:
            kept[items[0]["loss"]] = items  # the loss says the attempt and the step
    lost, without = [], 0
    for lines in read_attempts(run_dir).values():
        items = kept.get(lines[0]["loss"], []) if lines else []
        if not items:
            without += 1
            continue
        assert [item["_step"] for item in items] == [line["step"] for line in lines[: len(items)]]
        lost.append(lines[-1]["time"] - lines[len(items) - 1]["time"])
    return lost, without


def sync(run_dir: RunDir, server: WandbServer, folder: Path) -> dict[str, int]:
    command = [sys.executable, "-c", _SYNC, str(folder), str(run_dir.path)]
    variables = environment(WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    uploaded: dict[str, int] = json.loads(done.stdout)["uploaded"]
    return uploaded


@pytest.mark.timeout(3600)
def test_killed_runs_are_one_history(run_file: Path, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    draw = random.Random(seed)
    server = WandbServer()
    losses: list[float] = []
    without = 0
    for number in range(RUNS):
        run_dir = create_run_dir(tmp_path / "runs", f"killed-{number}")
        run_dir.run_yaml.write_text(yaml.safe_dump(load_run(run_file).model_dump(mode="json")))
        start = 0
        for moment_s in moments(draw):
            start = train_and_kill(run_dir, start, moment_s, draw)
        lines = read_metrics(run_dir)
        assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
        lost, missing = check_fragments(run_dir)
        losses, without = losses + lost, without + missing

        assert sync(run_dir, server, tmp_path / f"sent-{number}")["steps"] == len(lines)
        [sent] = (tmp_path / f"sent-{number}").glob("wandb/run-*/run-*.wandb")
        records = read_back(sent, tmp_path)
        history = [each["item"] for each in of_kind(records, "history")]
        assert of_kind(records, "run")[0]["run_id"] == stable_wandb_id(run_dir)
        assert [item["_step"] for item in history] == [line["step"] for line in lines]
        assert [item["loss"] for item in history] == [line["loss"] for line in lines]
        assert server.runs[stable_wandb_id(run_dir)].steps() == [line["step"] for line in lines]
        assert sync(run_dir, server, tmp_path / f"again-{number}")["steps"] == 0
        assert server.runs[stable_wandb_id(run_dir)].steps() == [line["step"] for line in lines]
    server.close()
    most = max(losses, default=0.0)
    print(f"{RUNS} runs of {ATTEMPTS} killed attempts: W&B's own files lost at most {most:.2f} s; {without} attempts")
    print("were killed before W&B had begun its file; after sync 0 steps were lost and none was there twice")
    assert most <= _MOST_LOST_S + _SLACK_S
    assert losses or not WHOLE, "five attempts may all be killed before W&B has begun"
