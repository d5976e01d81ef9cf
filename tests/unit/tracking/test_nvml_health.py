"""The health of GPUs, asked through the real nvidia-ml-py of a library without a driver."""

import json

import pytest

from trainwright.tracking.nvml_devices import NotMeasured
from trainwright.tracking.nvml_health import GpuHealth, HealthCheck

from .fake_nvml import FakeNvml

_READ = "from trainwright.tracking.nvml_health import main; main()"


def health(fake_nvml: FakeNvml, **variables: str) -> list[GpuHealth]:
    return [GpuHealth(**gpu) for gpu in json.loads(fake_nvml.python(_READ, **variables))["gpus"]]


def test_a_healthy_gpu(fake_nvml: FakeNvml) -> None:
    first, second = health(fake_nvml)
    assert first == GpuHealth(
        uuid="GPU-0a000000-0000-4000-8000-000000000000",
        lost=False,
        uncorrected_errors=0,
        remap_pending=False,
        remap_failed=False,
        slowed=[],  # what the library says, the power limit, is no illness
        clock_mhz=1755,
        max_clock_mhz=1980,
    )
    assert second.uuid != first.uuid


def test_an_ill_one(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(**{"1.uncorrected": 3, "1.pending": 1, "1.failure": 1, "1.reasons": 128 + 64})
    well, ill = health(fake_nvml)
    assert (well.uncorrected_errors, well.remap_pending, well.slowed) == (0, False, [])
    assert (ill.uncorrected_errors, ill.remap_pending, ill.remap_failed) == (3, True, True)
    assert ill.slowed == ["too hot (hardware slowdown)", "power brake"]


def test_older_gpus_have_pages_instead_of_rows(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(**{"0.pending": -3, "0.pages": 1})
    assert (health(fake_nvml)[0].remap_pending, health(fake_nvml)[0].remap_failed) == (True, None)


def test_what_is_not_told_is_not_measured_and_a_lost_gpu_is_known(fake_nvml: FakeNvml) -> None:
    keys = ("uncorrected", "pending", "pages", "reasons", "clock", "max_clock")
    fake_nvml.set(**{f"0.{key}": -3 for key in keys}, **{"1.reasons": -15})
    silent, lost = health(fake_nvml)
    assert (silent.uncorrected_errors, silent.remap_pending, silent.slowed, silent.clock_mhz) == (None,) * 4
    assert (silent.lost, lost.lost) == (False, True)


def test_a_driver_that_hangs_is_not_waited_for(fake_nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in fake_nvml.environment().items():
        monkeypatch.setenv(name, value)
    assert len(HealthCheck().answer(60.0)) == 2
    fake_nvml.set(init=-9)
    with pytest.raises(NotMeasured, match="Driver Not Loaded"):
        HealthCheck().answer(60.0)
    fake_nvml.set(hang=1)
    with pytest.raises(TimeoutError, match="has not answered"):
        HealthCheck().answer(0.5)
