"""What a rank measures of itself and its node before the first step; on CPU it takes some 30 ms."""

import errno
import importlib.metadata
import json
import os
import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from ..config.rundir import RunDir

_LIBRARIES = ("torch", "megatron-core", "numpy")
_DRIVER = Path("/proc/driver/nvidia/version")
_PROBE_BYTES = 65536


@dataclass(frozen=True, kw_only=True)
class _Load:
    """How much is computed and sent."""

    device: str
    dtype: torch.dtype
    size: int
    """Rows and columns of the matrices."""
    seconds: float
    words: int
    """fp32 numbers of the all-reduce."""


_GPU = _Load(device="cuda", dtype=torch.bfloat16, size=8192, seconds=0.3, words=1 << 24)
_CPU = _Load(device="cpu", dtype=torch.float32, size=192, seconds=0.02, words=1 << 16)


def _load() -> _Load:
    return _GPU if torch.cuda.is_available() else _CPU


def matrix_product(seconds: float | None = None) -> tuple[float, float]:
    """Tflop/s of the fastest of several products, and a checksum that is the same wherever they are computed.

    On CPU it is CPU time that counts, so that a core which others use too is not found slow.
    """
    load = _load()
    numbers = torch.arange(load.size, device=load.device)
    whole = (numbers[:, None] * 7 + numbers[None, :] * 13) % 5 - 2  # small whole numbers: sums of products are exact
    matrix = whole.to(load.dtype)
    product = matrix @ matrix
    best_s, ends = float("inf"), time.monotonic() + (load.seconds if seconds is None else seconds)
    while time.monotonic() < ends or best_s == float("inf"):
        began = _seconds()
        product = matrix @ matrix
        best_s = min(best_s, max(_seconds() - began, 1e-9))
    rows = product.sum(dim=1, dtype=torch.float64)
    checksum = (rows * (numbers % 1009 + 1)).sum().item()
    return 2 * load.size**3 / best_s / 1e12, float(checksum)


def _seconds() -> float:
    if not torch.cuda.is_available():
        return time.thread_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def all_reduce() -> float:
    """GB/s at which each rank's data is summed up over all of them; all call it. RuntimeError if the sum is wrong."""
    load, size = _load(), dist.get_world_size()
    best_s = float("inf")
    for _ in range(3):
        data = torch.ones(load.words, device=load.device)
        _seconds()
        began = time.perf_counter()
        dist.all_reduce(data)
        _seconds()
        best_s = min(best_s, time.perf_counter() - began)
    if not bool((data == size).all()):
        raise RuntimeError(f"an all-reduce of ones over {size} ranks came to {data.min():.6g}, up to {data.max():.6g}")
    return load.words * 4 / best_s / 1e9


def clock_ahead() -> tuple[float, float]:
    """Between which two numbers of seconds this clock is ahead of rank 0's; all ranks call it."""
    dist.all_reduce(torch.zeros(1))  # so that nobody is waited for in what is timed
    began = time.time()
    dist.all_reduce(torch.zeros(1))  # rank 0 leaves it after all have entered it
    box = torch.tensor([time.time()], dtype=torch.float64)
    dist.broadcast(box, src=0)
    ended = time.time()
    return began - box.item(), ended - box.item()


def write_and_read(probe: Path) -> OSError | None:
    """Write a small file, read it again, remove it; what went wrong."""
    data = os.urandom(_PROBE_BYTES)
    try:
        try:
            with probe.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if probe.read_bytes() != data:
                raise OSError(errno.EIO, "a file is read back with other bytes")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        return error
    return None


def versions(run_dir: RunDir) -> dict[str, str]:
    """What must be the same on all nodes; what a node does not have is left out."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if torch.cuda.is_available():
        found["NCCL"] = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    if _DRIVER.is_file() and (version := re.search(r"\s(\d+(?:\.\d+)+)\s", _DRIVER.read_text(encoding="utf-8"))):
        found["driver"] = version.group(1)
    if run_dir.code_digest.is_file():
        found["snapshot"] = json.loads(run_dir.code_digest.read_text(encoding="utf-8"))["sha256"][:16]
    return found
