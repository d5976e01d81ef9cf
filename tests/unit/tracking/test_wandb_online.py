"""`tracking.wandb.mode: online` with W&B's real client: live, over resumes, and without a network."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from trainwright.config.loading import load_run
from trainwright.config.rundir import RunDir
from trainwright.tracking.recorder import Recorder, StepRecord, read_metrics

from .wandb_files import fragments, of_kind, read_back
from .wandb_server import KEY, ServedRun, WandbServer

# first step, last step, "ok" or "kill"; prints the seconds of the steps and of closing
_ATTEMPT = """
import json, os, signal, sys, time
from pathlib import Path
from trainwright.config.loading import load_run
from trainwright.config.rundir import RunDir
from trainwright.tracking import wandb_log
from trainwright.tracking.recorder import Recorder, StepRecord
run_file, folder, attempt, first, last, mode, how = sys.argv[1:]
wandb_log._INIT_S = 3.0
run = load_run(Path(run_file), [f"tracking.wandb.mode={mode}", "tracking.wandb.group=g", "tracking.wandb.tags=[a,b]",
    "tracking.wandb.notes=hello", "tracking.wandb.entity=team"])
recorder = Recorder(run, RunDir(Path(folder)), int(attempt), console=False)
began = time.monotonic()
for step in range(int(first), int(last) + 1):
    recorder.step(StepRecord(step=step, loss=1 / step, grad_norm=1.0, lr=1.0, tokens=1, seconds=0.1))
    if step % 5 == 0:
        place = Path(folder) / "checkpoints" / f"step-{step:08d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "manifest.json").write_text(str(step))
        recorder.checkpoint(step, place, f"{step:064d}")
stepped = time.monotonic() - began
if how == "kill":
    time.sleep(float(os.environ["SECONDS"]))
    os.kill(os.getpid(), signal.SIGKILL)
if how == "later":
    time.sleep(float(os.environ["SECONDS"]))
recorder.close(True)
print(json.dumps([stepped, time.monotonic() - began - stepped]))
"""


def attempt(
    run_file: Path, run_dir: RunDir, *words: object, **variables: str | None
) -> subprocess.CompletedProcess[str]:
    """One attempt in a process of its own: number, first step, last step, mode, how it ends."""
    base = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    base |= {"WANDB_API_KEY": KEY, "HOME": str(run_dir.path.parent)}
    given = {name: value for name, value in {**base, **variables}.items() if value is not None}
    command = [sys.executable, "-c", _ATTEMPT, str(run_file), str(run_dir.path), *map(str, words)]
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=120)


def only(server: WandbServer) -> ServedRun:
    [run] = server.runs.values()
    return run


def test_steps_settings_and_checkpoints_reach_the_server(run_file: Path, run_dir: RunDir, server: WandbServer) -> None:
    done = attempt(run_file, run_dir, 1, 1, 12, "online", "ok", WANDB_BASE_URL=server.url)
    assert done.returncode == 0
    assert done.stderr == ""
    run = only(server)
    assert run.steps() == list(range(1, 13))
    assert run.values("loss") == [1 / step for step in range(1, 13)]
    upsert = run.upserts[0]
    told = [upsert[name] for name in ("entity", "project", "groupName", "notes", "tags", "displayName")]
    assert told == ["team", "trainwright", "g", "hello", ["a", "b"], "tiny"]
    assert len(run.artifacts) == 2
    assert server.unknown == []
    files = [path for path in run_dir.path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_a_resumed_run_has_one_history_without_a_step_twice(
    run_file: Path, run_dir: RunDir, server: WandbServer
) -> None:
    """Killed before the server had all, gone on from step 8, then from 12, then offline, then online again."""
    first = attempt(run_file, run_dir, 1, 1, 12, "online", "kill", WANDB_BASE_URL=server.url, SECONDS="5")
    assert first.returncode == -9
    assert only(server).steps() in ([], list(range(1, 13)))
    attempt(run_file, run_dir, 2, 9, 15, "online", "ok", WANDB_BASE_URL=server.url)
    assert only(server).steps() == list(range(1, 16))
    attempt(run_file, run_dir, 3, 13, 17, "online", "ok", WANDB_BASE_URL=server.url)
    assert only(server).steps() == list(range(1, 18))
    attempt(run_file, run_dir, 4, 18, 20, "offline", "ok", WANDB_BASE_URL=server.url)
    assert only(server).steps() == list(range(1, 18))
    last = attempt(run_file, run_dir, 5, 21, 24, "online", "ok", WANDB_BASE_URL=server.url)
    assert last.stderr == ""
    assert only(server).steps() == list(range(1, 25))
    assert only(server).values("loss") == [line["loss"] for line in read_metrics(run_dir)]


@pytest.mark.parametrize("network", ["hangs", "absent", "no key"])
def test_no_network_delays_nothing_and_leaves_offline_files(run_file: Path, run_dir: RunDir, network: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        port = 9 if network == "absent" else silent.getsockname()[1]
        variables = {"WANDB_BASE_URL": f"http://127.0.0.1:{port}", "SECONDS": "2" if network == "no key" else "9"}
        key = {"WANDB_API_KEY": None} if network == "no key" else {}
        done = attempt(run_file, run_dir, 1, 1, 500, "online", "later", **variables, **key)
    assert done.returncode == 0
    stepped_s, closed_s = json.loads(done.stdout)
    assert stepped_s < 2
    assert closed_s < 12 + 16
    assert len(read_metrics(run_dir)) == 500
    said = [line for line in done.stderr.splitlines() if line.startswith("trainwright: ")]
    assert len(said) == 1
    assert "W&B is not to be reached" in said[0]
    assert "`trainwright sync tiny` uploads them" in said[0]
    kept = [of_kind(read_back(each, run_dir.path), "history") for each in fragments(run_dir)]
    assert [[item["item"]["_step"] for item in each] for each in kept if each] == [list(range(1, 501))]


def test_a_network_that_goes_away_stops_nothing(run_file: Path, run_dir: RunDir, server: WandbServer) -> None:
    server.broken = 500  # history is answered with an error for ever
    done = attempt(run_file, run_dir, 1, 1, 50, "online", "ok", WANDB_BASE_URL=server.url)
    assert done.returncode == 0
    stepped_s, closed_s = json.loads(done.stdout)
    assert stepped_s < 2
    assert closed_s < 20
    assert len(read_metrics(run_dir)) == 50
    assert "`trainwright sync tiny` uploads them" in done.stderr


def test_values_of_experts_and_gpus_have_stable_names(run_file: Path, run_dir: RunDir) -> None:
    import numpy as np

    from trainwright.tracking.gpu_usage import GpuUsage
    from trainwright.tracking.recorder import Routing

    class Gpus:
        def take(self) -> GpuUsage:
            return GpuUsage(
                util_percent=(90.0, None),
                memory_used_bytes=(1e9, 3e9),
                memory_total_bytes=(8e9, 8e9),
                power_w=(100.0, 200.0),
                temperature_c=(50.0, 60.0),
            )

    run = load_run(run_file, ["tracking.expert_load_every=1"])
    recorder = Recorder(run, run_dir, 1, gpus=Gpus(), console=False)  # type: ignore[arg-type]
    routing = Routing(load=np.array([[0.5, 1.5], [1.0, 1.0]]), aux_loss=1.0, z_loss=0.1)
    recorder.step(StepRecord(step=1, loss=1.0, grad_norm=1.0, lr=1.0, tokens=1, seconds=0.1, routing=routing))
    recorder.close(True)
    [line] = read_metrics(run_dir)
    assert line["gpus"]["util_percent"] == [90.0, None]
    [history] = of_kind(read_back(fragments(run_dir)[0], run_dir.path), "history")
    item = history["item"]
    assert item["gpu/util_percent"] == 90
    assert item["gpu/0/util_percent"] == 90
    assert "gpu/1/util_percent" not in item
    assert item["gpu/memory_used_bytes"] == 2e9
    assert item["gpu/1/power_w"] == 200
    assert item["expert_load/expert_001"] == 1.25
    assert item["expert_load_max/layer_000"] == 1.5
    assert item["expert_load_max"] == 1.5
    assert item["aux_loss"] == 1.0
