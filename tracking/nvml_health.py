"""The health of this job's GPUs on a node, as the driver tells it; asked in a process of its own, which may hang.

python -m trainwright.tracking.nvml_health      # a JSON line: {"gpus": [...]} or {"not_measured": reason}
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pynvml

from .nvml import Nvml
from .nvml_devices import NotMeasured

_SLOWED = {
    pynvml.nvmlClocksThrottleReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "too hot (hardware slowdown)",
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "power brake",
    pynvml.nvmlClocksThrottleReasonSwThermalSlowdown: "too hot (the driver slows it)",
}
"""Reasons for low clocks that a healthy GPU under load does not have; the power limit is not one of them."""


@dataclass(frozen=True, kw_only=True)
class GpuHealth:
    """One GPU. None: not measured."""

    uuid: str
    lost: bool
    """It fell off the bus, or needs a reset."""
    uncorrected_errors: int | None
    """Memory errors that ECC could not correct, since the driver was loaded."""
    remap_pending: bool | None
    """Rows of its memory (pages, on older GPUs) wait for a reset to be replaced."""
    remap_failed: bool | None
    """There are no spare rows left."""
    slowed: list[str] | None
    """Why its clocks are low, if they should not be."""
    clock_mhz: int | None
    max_clock_mhz: int | None


def read_health(environment: Mapping[str, str]) -> list[GpuHealth]:
    """Each GPU of this job; raises NotMeasured."""
    nvml = Nvml(environment)
    return [_read(gpu.uuid, pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid)) for gpu in nvml.gpus]


def _read(uuid: str, handle: Any) -> GpuHealth:
    lost: list[bool] = []

    def ask(call: Callable[..., Any], *arguments: int) -> Any:
        try:
            return call(handle, *arguments)
        except (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_ResetRequired):
            lost.append(True)
        except pynvml.NVMLError:  # not supported, no permission, not in this driver's library, ...
            pass
        return None

    errors = ask(
        pynvml.nvmlDeviceGetTotalEccErrors, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
    )
    rows = ask(pynvml.nvmlDeviceGetRemappedRows)  # corrected, uncorrected, pending, failure
    pages = ask(pynvml.nvmlDeviceGetRetiredPagesPendingStatus) if rows is None else None
    reasons = ask(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    pending = rows[2] if rows is not None else pages
    return GpuHealth(
        uncorrected_errors=errors,
        remap_pending=None if pending is None else bool(pending),
        remap_failed=None if rows is None else bool(rows[3]),
        slowed=None if reasons is None else [words for bit, words in _SLOWED.items() if reasons & bit],
        clock_mhz=ask(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM),
        max_clock_mhz=ask(pynvml.nvmlDeviceGetMaxClockInfo, pynvml.NVML_CLOCK_SM),
        uuid=uuid,
        lost=bool(lost),
    )


class HealthCheck:
    """Asks in a process of its own; started first and read later, so that other checks run meanwhile."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "trainwright.tracking.nvml_health"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def answer(self, timeout_s: float) -> list[GpuHealth]:
        """Each GPU. Raises NotMeasured, and TimeoutError if the driver does not answer: the process is left to it."""
        try:
            said, _ = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise TimeoutError(f"the driver has not answered for {timeout_s:.0f} s") from None
        try:
            record = json.loads(said)
        except ValueError:
            raise NotMeasured(f"its process ended with code {self._process.returncode}") from None
        if "not_measured" in record:
            raise NotMeasured(record["not_measured"])
        return [GpuHealth(**gpu) for gpu in record["gpus"]]


def main() -> int:
    """Answer on stdout; the exit code."""
    try:
        record: dict[str, Any] = {"gpus": [asdict(gpu) for gpu in read_health(os.environ)]}
    except NotMeasured as reason:
        record = {"not_measured": str(reason)}
    print(json.dumps(record), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
