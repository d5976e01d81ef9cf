"""A real run on this machine with a stand-in for the driver's library: its numbers reach every place they should."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainwright.tracking.recorder import read_metrics

from ..unit.tracking.fake_nvml import FakeNvml, build
from ..unit.tracking.wandb_files import fragments, of_kind, read_back
from .real_runs import LAYOUTS, Model, make_project, train

pytestmark = pytest.mark.ranks
_OVERRIDES = [
    *LAYOUTS["tp2"],
    "train.steps=60",
    "checkpoint.every_steps=40",
    "checkpoint.keep=2",
    "tracking.wandb.mode=offline",
    "cluster.gpus_per_node=2",
    "preflight.enabled=false",  # these GPUs are seen by NVML alone
    "cluster.environment=[FAKE_NVML_STATE]",
]


def test_gpu_numbers_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml(build(tmp_path / "nvml"), tmp_path / "nvml-state")
    fake.set(
        **{"count": 2, "0.util": 80, "1.util": 90, "0.used": 2**33, "1.used": 2**33, "0.power": 300, "1.power": 500}
    )
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake.folder))
    monkeypatch.setenv("FAKE_NVML_STATE", str(fake.state))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    run = train(make_project(tmp_path, Model("llama", tied=True)), "measured", _OVERRIDES)

    told = [line["gpus"] for line in read_metrics(run) if "gpus" in line]
    assert told
    assert all(each["util_percent"] == [90, 80] for each in told)  # in CUDA's order
    assert [path.name for path in run.telemetry.glob("gpus-*")] == ["gpus-0001-00000.jsonl"]  # one of two ranks
    header = json.loads(run.gpus(1, 0).read_text().splitlines()[0])
    assert [gpu["uuid"][:6] for gpu in header["gpus"]] == ["GPU-1a", "GPU-0a"]
    said = run.rank_log(1, 0).read_text()
    assert "GPU 85 % 8.0 GiB 400 W" in said
    assert "Traceback" not in said, "W&B's process ends before the rank ends what it has started"

    records = read_back(fragments(run)[0], tmp_path)
    powers = [each["item"].get("gpu/0/power_w") for each in of_kind(records, "history")]
    assert {power for power in powers if power is not None} == {500}
    checkpoints = [json.loads(each["metadata"]) for each in of_kind(records, "artifact")]
    assert [each["step"] for each in checkpoints] == [40, 60]

    command = [sys.executable, "-m", "trainwright.cli.main", "status", str(run.path)]
    status = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "GPU      util 85 %, 8.0 GiB, 400 W (mean of 2 GPUs)" in status


def test_without_a_driver_the_status_says_not_measured(tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has a driver")
    run = train(make_project(tmp_path, Model("llama", tied=True)), "unmeasured")
    command = [sys.executable, "-m", "trainwright.cli.main", "status", str(run.path)]
    status = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "GPU      not measured" in status
    assert "gpus" not in read_metrics(run)[-1]
    assert list(run.telemetry.glob("gpus-*")) == []
