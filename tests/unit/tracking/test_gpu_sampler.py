"""The sampler in a process of its own, with the real nvidia-ml-py: means, files, hangs, a lost GPU, and no driver."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from trainwright.config.rundir import RunDir
from trainwright.tracking.gpu_usage import COUNTERS, GpuUsage, read_usage

from .fake_nvml import FakeNvml

_PRELUDE = """
import json, os, sys, time
from pathlib import Path
from trainwright.config.rundir import RunDir
from trainwright.tracking.gpu_sampler import GpuSampler
run_dir = RunDir(Path(sys.argv[1]))
path = run_dir.gpus(1, 0)
def wait_for(ready, limit_s=30):
    end = time.monotonic() + limit_s
    while not ready():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.01)
def state(**values):
    beside = Path(os.environ["FAKE_NVML_STATE"] + ".other")
    beside.write_text("".join(f"{key.replace('_', '.')} {value}\\n" for key, value in values.items()))
    beside.rename(os.environ["FAKE_NVML_STATE"])
def lines():
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
sampler = GpuSampler(path, every_s=0.05, hang_s=0.5)
"""


def start(fake_nvml: FakeNvml, run_dir: RunDir, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `code` after the prelude."""
    done = subprocess.run(
        [sys.executable, "-c", _PRELUDE + code, str(run_dir.path)],
        env=fake_nvml.environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done


def windows(run_dir: RunDir) -> list[dict[str, Any]]:
    """The node's file."""
    return [json.loads(line) for line in run_dir.gpus(1, 0).read_text().splitlines()]


def test_the_mean_since_the_last_step_by_gpu(fake_nvml: FakeNvml, run_dir: RunDir) -> None:
    code = """
first = []
wait_for(lambda: (first.append(sampler.take()) or first[-1]))
state(count=2, **{"0_util": 10, "1_util": 20, "1_power": -3})
time.sleep(0.5)
sampler.take()
time.sleep(0.5)
mean = sampler.take()
print(json.dumps([first[-1].record(), mean.record(), sampler.take() is None]))
sampler.close()
"""
    first, mean, nothing_new = json.loads(start(fake_nvml, run_dir, code).stdout)
    assert first["util_percent"] == [97, 97]
    assert mean["util_percent"] == [10, 20]
    assert mean["power_w"] == [612, None]
    assert nothing_new
    header, window = windows(run_dir)
    assert [gpu["name"] for gpu in header["gpus"]] == ["NVIDIA H200"] * 2
    assert 10 < window["util_percent"][0] < 97
    assert 0.5 < window["seconds"] < 30
    usage = read_usage(run_dir, 1)
    assert usage
    assert usage.record() == {name: window[name] for name in COUNTERS}


def test_only_the_jobs_own_gpu_is_sampled(fake_nvml: FakeNvml, run_dir: RunDir) -> None:
    fake_nvml.set(**{"count": 4, "2.util": 55})
    start(fake_nvml, run_dir, "wait_for(sampler.take)\nsampler.close()", CUDA_VISIBLE_DEVICES="2")
    header, window = windows(run_dir)
    assert [gpu["uuid"][:6] for gpu in header["gpus"]] == ["GPU-2a"]
    assert window["util_percent"] == [55]


def test_a_hang_delays_nobody_is_said_once_and_passes(fake_nvml: FakeNvml, run_dir: RunDir) -> None:
    code = """
wait_for(sampler.take)
state(count=2, hang=1)
longest = 0.0
end = time.monotonic() + 2
while time.monotonic() < end:
    began = time.monotonic()
    last = sampler.take()
    longest = max(longest, time.monotonic() - began)
    time.sleep(0.001)
state(count=2)
wait_for(sampler.take)
state(count=2, hang=1)
time.sleep(0.2)
began = time.monotonic()
sampler.close()
print(json.dumps([longest, last is None, time.monotonic() - began]))
"""
    done = start(fake_nvml, run_dir, code)
    longest_s, none_while_hanging, close_s = json.loads(done.stdout)
    assert longest_s < 0.2
    assert none_while_hanging
    assert close_s < 2.5
    assert done.stderr.count("a driver call hangs; training goes on") == 1
    assert [line for line in windows(run_dir) if "hangs" in line]


def test_a_driver_that_hangs_from_the_start_delays_nobody(fake_nvml: FakeNvml, run_dir: RunDir) -> None:
    fake_nvml.set(count=2, hang=1)
    code = """
began = time.monotonic()
assert sampler.take() is None
sampler.close()
print(time.monotonic() - began)
"""
    assert float(start(fake_nvml, run_dir, code).stdout) < 2.5
    assert read_usage(run_dir, 1) is None


def test_a_lost_gpu_is_said_once_and_the_other_goes_on(fake_nvml: FakeNvml, run_dir: RunDir) -> None:
    code = """
wait_for(sampler.take)
state(count=2, **{"1_util": -15, "1_used": -15, "1_power": -15, "1_temperature": -15})
time.sleep(0.5)
sampler.take()
time.sleep(0.5)
print(json.dumps(sampler.take().record()))
sampler.close()
"""
    done = start(fake_nvml, run_dir, code)
    assert json.loads(done.stdout)["util_percent"] == [97, None]
    [said] = done.stderr.splitlines()
    assert "GPU GPU-1a000001-0000-4000-8000-000000000000 is lost" in said
    assert len([line for line in windows(run_dir) if "lost" in line]) == 1


def test_why_nothing_is_measured_is_said_once(fake_nvml: FakeNvml, run_dir: RunDir) -> None:
    fake_nvml.set(init=-18)
    done = start(fake_nvml, run_dir, "time.sleep(2)\nassert sampler.take() is None\nsampler.close()")
    assert done.stderr.splitlines() == [
        "trainwright: GPU numbers are not measured: NVML: RM has detected an NVML/RM version mismatch."
    ]
    assert not run_dir.gpus(1, 0).exists()


def test_without_a_driver_there_is_no_process_no_file_and_no_word(run_dir: RunDir, tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has a driver")
    nowhere = FakeNvml(tmp_path / "empty", tmp_path / "state")
    done = start(nowhere, run_dir, "print(sampler.take(), hasattr(sampler, '_process'))\nsampler.close()")
    assert done.stdout.split() == ["None", "False"]
    assert done.stderr == ""
    assert not run_dir.gpus(1, 0).exists()


def test_the_sampler_ends_with_a_killed_owner(fake_nvml: FakeNvml, run_dir: RunDir) -> None:
    code = """
wait_for(sampler.take)
print(sampler._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", _PRELUDE + code, str(run_dir.path)],
        env=fake_nvml.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    child = Path("/proc") / done.stdout.strip()
    deadline = time.monotonic() + 10
    while child.exists() and "Z" not in (child / "stat").read_text().rpartition(")")[2].split()[0]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def usage(util: list[float | None], used: list[float | None], power: list[float | None]) -> GpuUsage:
    nothing = tuple(None for _ in util)
    return GpuUsage(
        util_percent=tuple(util),
        memory_used_bytes=tuple(used),
        memory_total_bytes=nothing,
        power_w=tuple(power),
        temperature_c=nothing,
    )


class TestUsage:
    """Merging and words."""

    def test_words_for_one_for_many_and_for_what_is_not_measured(self) -> None:
        one = usage([87.2], [61.2 * 2**30], [511.6])
        assert one.text() == "util 87 %, 61.2 GiB, 512 W"
        assert one.brief() == "GPU 87 % 61.2 GiB 512 W"
        two = usage([80.0, 90.0], [2.0**30, 3 * 2.0**30], [None, 500.0])
        assert two.text() == "util 85 %, 2.0 GiB, 500 W (mean of 2 GPUs)"
        mig = usage([None], [2.0**30], [None])
        assert mig.text() == "util not measured, 1.0 GiB, power not measured"
        assert mig.brief() == "GPU 1.0 GiB"
        nothing = usage([None], [None], [None])
        assert nothing.text() == "not measured"
        assert nothing.brief() == ""
        assert nothing.by_name() == {}

    def test_zero_is_a_number(self) -> None:
        assert usage([0.0], [0.0], [70.0]).text() == "util 0 %, 0.0 GiB, 70 W"

    def test_nodes_are_merged_and_each_is_weighted_by_time(self, run_dir: RunDir) -> None:
        run_dir.telemetry.mkdir()
        record = usage([90.0], [1.0], [100.0]).record()
        later = usage([30.0], [1.0], [100.0]).record()
        other = usage([10.0, None], [1.0, 1.0], [100.0, 100.0]).record()
        run_dir.gpus(1, 0).write_text(
            json.dumps({"time": 0.0, "host": "a", "gpus": []})
            + "\n"
            + json.dumps({"time": 30.0, "seconds": 30.0, **record})
            + "\n"
            + json.dumps({"time": 40.0, "seconds": 10.0, **later})
            + '\n{"time": 50.0, "sec'
        )
        run_dir.gpus(1, 8).write_text(json.dumps({"time": 41.0, "seconds": 10.0, **other}) + "\n")
        run_dir.gpus(2, 0).write_text(json.dumps({"time": 99.0, "seconds": 10.0, **later}) + "\n")
        whole = read_usage(run_dir, 1)
        assert whole
        assert whole.util_percent == (75.0, 10.0, None)
        recent = read_usage(run_dir, 1, last_s=5)
        assert recent
        assert recent.util_percent == (30.0, 10.0, None)
        assert read_usage(run_dir, 3) is None
