"""The numbers of this job's GPUs, read through nvidia-ml-py. What a GPU or driver does not tell is None, never 0.

Any call may hang with a sick GPU: only the sampler's own process calls this.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pynvml

from .nvml_devices import NotMeasured, choose_devices


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU or MIG instance of this job."""

    uuid: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One look at one GPU. None: not measured."""

    util_percent: float | None
    """Share of the last sample period (1/6 to 1 s) in which any kernel ran; not told for MIG."""
    memory_used_bytes: int | None
    """Without what the driver reserves, where the driver tells them apart."""
    memory_total_bytes: int | None
    power_w: float | None
    temperature_c: float | None
    lost: bool
    """The GPU fell off the bus, or needs a reset."""


class Nvml:
    """This job's GPUs, opened once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Raises NotMeasured if there is no driver or no GPU of this job."""
        try:
            pynvml.nvmlInit()
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            uuids = [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
            names = [pynvml.nvmlDeviceGetName(handle) for handle in handles]
            chosen = choose_devices(environment, uuids, names)
            self._handles = [pynvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in chosen]
            self.gpus = [
                Gpu(uuid=uuid, name=str(pynvml.nvmlDeviceGetName(handle)))
                for uuid, handle in zip(chosen, self._handles, strict=True)
            ]
        except pynvml.NVMLError as error:
            raise NotMeasured(f"NVML: {error}") from None
        if not self.gpus:
            raise NotMeasured("no GPU is visible to this job")

    def read(self) -> list[Reading]:
        """One look at each GPU, in the order of `gpus`."""
        return [_read(handle) for handle in self._handles]


def _read(handle: Any) -> Reading:
    lost: list[bool] = []

    def ask(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_ResetRequired):
            lost.append(True)
        except pynvml.NVMLError:  # not supported, no permission, not in this driver's library, ...
            pass
        return None

    util = ask(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    memory = ask(lambda: _memory(handle))
    power_mw = ask(lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
    temperature = ask(lambda: _temperature(handle))
    return Reading(
        util_percent=None if util is None else float(util),
        memory_used_bytes=memory and int(memory.used),
        memory_total_bytes=memory and int(memory.total),
        power_w=None if power_mw is None else power_mw / 1000,
        temperature_c=None if temperature is None else float(temperature),
        lost=bool(lost),
    )


def _memory(handle: Any) -> Any:
    try:
        return pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    except (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_NotSupported):  # older drivers have the first only
        return pynvml.nvmlDeviceGetMemoryInfo(handle)


def _temperature(handle: Any) -> int:
    try:
        return int(pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU))
    except (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_NotSupported):
        return int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
