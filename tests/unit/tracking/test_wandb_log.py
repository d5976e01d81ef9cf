"""Real W&B, offline: read back with W&B's own reader; killed, broken and absent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trainwright.config.run import RunConfig
from trainwright.config.rundir import RunDir
from trainwright.tracking.recorder import Recorder, StepRecord, read_metrics
from trainwright.tracking.wandb_log import stable_wandb_id

from .wandb_files import fragments, of_kind, read_back

Make = Callable[..., StepRecord]


def record(run: RunConfig, run_dir: RunDir, attempt: int, records: list[StepRecord], ok: bool = True) -> None:
    recorder = Recorder(run, run_dir, attempt, console=False)
    for each in records:
        recorder.step(each)
    recorder.close(ok)


def test_every_step_the_run_tree_and_the_ending_are_in_wandb(
    run: RunConfig, run_dir: RunDir, make_record: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    record(run, run_dir, 1, [make_record(step) for step in range(1, 21)])
    [fragment] = fragments(run_dir)
    records = read_back(fragment, run_dir.path)
    history = [each["item"] for each in of_kind(records, "history")]
    assert [item["_step"] for item in history] == list(range(1, 21))
    assert [item["loss"] for item in history] == pytest.approx([line["loss"] for line in read_metrics(run_dir)], abs=0)
    [about] = of_kind(records, "run")
    assert about["run_id"] == stable_wandb_id(run_dir)
    assert about["config"]["update"]["train"]["optimizer"]["lr"] == 1e-3
    assert [each.get("exit_code", 0) for each in of_kind(records, "exit")] == [0]
    assert capfd.readouterr() == ("", "")


def test_attempts_share_one_id_and_a_crash_is_told(run: RunConfig, run_dir: RunDir, make_record: Make) -> None:
    record(run, run_dir, 1, [make_record(step) for step in (1, 2, 3)], ok=False)
    time.sleep(1.1)  # W&B's folder names have seconds
    record(run, run_dir, 2, [make_record(step) for step in (3, 4)])
    read = [read_back(fragment, run_dir.path) for fragment in fragments(run_dir)]
    assert [of_kind(records, "run")[0]["run_id"] for records in read] == [stable_wandb_id(run_dir)] * 2
    assert [of_kind(records, "exit")[0].get("exit_code", 0) for records in read] == [1, 0]
    steps = [[each["item"]["_step"] for each in of_kind(records, "history")] for records in read]
    assert steps == [[1, 2, 3], [3, 4]]


def test_nothing_of_the_machine_the_code_or_the_terminal_is_kept(
    run: RunConfig, run_dir: RunDir, make_record: Make
) -> None:
    recorder = Recorder(run, run_dir, 1, console=False)
    print("words on stdout")
    recorder.step(make_record(1))
    recorder.close(ok=True)
    records = read_back(fragments(run_dir)[0], run_dir.path)
    kinds = {each["type"] for each in records}
    assert not kinds & {"output_raw", "output", "stats", "environment", "files"}
    assert [path for path in run_dir.wandb.glob("offline-run-*/files/*") if path.is_file()] == []


_KILLED = """
import os, signal, sys, time
from pathlib import Path
from trainwright.config.loading import load_run
from trainwright.config.rundir import RunDir
from trainwright.tracking.recorder import Recorder, StepRecord
recorder = Recorder(load_run(Path(sys.argv[1])), RunDir(Path(sys.argv[2])), 1)
for step in range(1, 41):
    recorder.step(StepRecord(step=step, loss=1.0, grad_norm=1.0, lr=1.0, tokens=1, seconds=0.1))
    time.sleep(0.1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def start(code: str, run_file: Path, run_dir: RunDir) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process that knows nothing of the W&B that this one may have started."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    command = [sys.executable, "-c", code, str(run_file), str(run_dir.path)]
    return subprocess.run(command, timeout=120, capture_output=True, text=True, env=environment)


def test_sigkill_loses_little_more_than_a_second(run_file: Path, run_dir: RunDir) -> None:
    done = start(_KILLED, run_file, run_dir)
    assert done.returncode == -signal.SIGKILL
    kept = of_kind(read_back(fragments(run_dir)[0], run_dir.path), "history")
    assert len(kept) >= 40 - 20  # a second is ten steps; as much again for a slow machine


_CORE_KILLED = """
import os, signal, sys, time
from pathlib import Path
from trainwright.config.loading import load_run
from trainwright.config.rundir import RunDir
from trainwright.tracking.recorder import Recorder, StepRecord

def wandb_cores():
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status = (folder / "stat").read_text()
            except OSError:
                continue
            name, rest = status.partition("(")[2].rpartition(")")[::2]
            if name.startswith("wandb-core") and int(rest.split()[1]) == os.getpid():
                yield int(folder.name)

run_dir = RunDir(Path(sys.argv[2]))
recorder = Recorder(load_run(Path(sys.argv[1])), run_dir, 1)
step = lambda n: recorder.step(StepRecord(step=n, loss=1.0, grad_norm=1.0, lr=1.0, tokens=1, seconds=0.1))
step(1)
deadline = time.monotonic() + 30
while not list(run_dir.wandb.glob("offline-run-*/run-*.wandb")) and time.monotonic() < deadline:
    time.sleep(0.05)
cores = list(wandb_cores())
for core in cores:
    os.kill(core, SIGNAL)
began = time.monotonic()
for number in range(2, 201):
    step(number)
stepped = time.monotonic() - began
recorder.close(True)
print(len(cores), stepped, time.monotonic() - began, flush=True)
"""


@pytest.mark.parametrize("sign", ["signal.SIGKILL", "signal.SIGSTOP"])
def test_training_neither_stops_nor_waits_when_wandbs_process_dies_or_hangs(
    run_file: Path, run_dir: RunDir, sign: str
) -> None:
    code = _CORE_KILLED.replace("SIGNAL", sign)
    done = start(code, run_file, run_dir)
    cores, stepped_s, closed_s = done.stdout.split()
    assert int(cores) == 1
    assert float(stepped_s) < 2
    assert float(closed_s) < 40
    assert len(read_metrics(run_dir)) == 200
    assert done.returncode == 0
    assert "W&B failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_training_survives_wandb_failing_to_start(
    run: RunConfig,
    run_dir: RunDir,
    make_record: Make,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    record(run, run_dir, 1, [make_record(1)])
    assert len(read_metrics(run_dir)) == 1
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 1
    assert "W&B failed" in told[0]


def test_disabled_imports_no_wandb_and_writes_none(run_file: Path, run_dir: RunDir) -> None:
    code = _KILLED.replace(
        "load_run(Path(sys.argv[1]))", "load_run(Path(sys.argv[1]), ['tracking.wandb.mode=disabled'])"
    )
    code = code.replace("time.sleep(0.1)", "").replace(
        "os.kill(os.getpid(), signal.SIGKILL)", "sys.exit('wandb' in sys.modules)"
    )
    done = start(code, run_file, run_dir)
    assert done.returncode == 0
    assert not run_dir.wandb.exists()


def test_the_id_is_made_once_whoever_asks(run_dir: RunDir) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: stable_wandb_id(run_dir), range(32)))
    assert len(ids) == 1
    assert stable_wandb_id(run_dir) in ids
    assert [path.name for path in run_dir.telemetry.iterdir()] == ["wandb-id"]
