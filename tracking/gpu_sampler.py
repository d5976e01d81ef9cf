"""Samples this node's GPUs while training: a process of its own asks NVML, a thread of ours reads what it says.

No method waits for the driver. A driver that hangs, or a GPU that is lost, is said once, and the numbers stop.
"""

import contextlib
import ctypes
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, TextIO

from .console import say
from .gpu_usage import COUNTERS, GpuUsage

_EVERY_S = 1.0
_WINDOW_S = 10.0  # one line per window in the node's file
_START_S = 60.0  # a driver without persistence mode takes long to wake many GPUs
_HANG_S = 10.0


class GpuSampler:
    """The GPUs of this job on this node. Without a driver nothing is started, and `take` gives None."""

    def __init__(self, file: Path, *, every_s: float = _EVERY_S, hang_s: float = _HANG_S) -> None:
        """Start; `file` gets a line with the GPUs, then one per 10 s. It is made when the first GPU has answered."""
        self._path, self._every_s, self._hang_s = file, every_s, hang_s
        self._lock = threading.Lock()
        self._recent: deque[GpuUsage] = deque(maxlen=1000)  # since the last `take`, which not every node calls
        self._window: list[GpuUsage] = []  # since the file's last line
        self._out: TextIO | None = None
        self._uuids: list[str] = []
        self._lost: set[str] = set()
        self._hangs = self._closed = False
        if not driver_is_here():
            return
        self._window_began = self._heard = time.monotonic()
        command = [sys.executable, "-m", "trainwright.tracking.nvml_child", str(every_s)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            say(f"GPU numbers are not measured: no process for it ({error})")
            return
        self._thread = threading.Thread(target=self._serve, name="gpu-sampler", daemon=True)
        self._thread.start()

    def take(self) -> GpuUsage | None:
        """The mean since the last call; None if there was no answer since. Returns at once."""
        with self._lock:
            recent = list(self._recent)
            self._recent.clear()
        return GpuUsage.mean(recent) if recent else None

    def close(self) -> None:
        """Stop. A process that hangs in the driver is left to it."""
        self._closed = True
        if not hasattr(self, "_process"):
            return
        self._process.kill()
        self._thread.join(2.0)

    def _serve(self) -> None:
        assert self._process.stdout
        pipe, rest = self._process.stdout.fileno(), b""
        with contextlib.suppress(OSError):  # the node's file cannot grow: a full disk stops the saver, not us
            while not self._closed:
                if select.select([pipe], [], [], min(self._every_s, 1.0))[0]:
                    data = os.read(pipe, 1 << 16)
                    if not data:
                        self._ended()
                        break
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        self._hear(json.loads(line))
                self._watch()
        with contextlib.suppress(OSError):
            self._write_window()
            if self._out:
                self._out.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)

    def _ended(self) -> None:
        if self._process.wait() and not self._closed:
            say(f"the GPU sampler's process ended with code {self._process.returncode}; training goes on")

    def _hear(self, said: dict[str, Any]) -> None:
        self._heard, self._hangs = time.monotonic(), False
        if "not_measured" in said:
            say(f"GPU numbers are not measured: {said['not_measured']}")
        elif "gpus" in said:
            self._uuids = [gpu["uuid"] for gpu in said["gpus"]]
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._out = self._path.open("a", encoding="utf-8")
            self._write({"host": os.uname().nodename, "gpus": said["gpus"]})
        else:
            self._take_in(said["readings"])

    def _take_in(self, readings: list[dict[str, Any]]) -> None:
        usage = GpuUsage(**{name: tuple(reading[name] for reading in readings) for name in COUNTERS})
        with self._lock:
            self._recent.append(usage)
        self._window.append(usage)
        for uuid, reading in zip(self._uuids, readings, strict=True):
            if reading["lost"] and uuid not in self._lost:
                self._lost.add(uuid)
                say(f"GPU {uuid} is lost (it fell off the bus or needs a reset)")
                self._write({"lost": uuid})

    def _watch(self) -> None:
        """Say once that the driver hangs; write the file's line when it is time."""
        now = time.monotonic()
        limit_s = self._hang_s if self._uuids else max(_START_S, self._hang_s)
        if not self._hangs and now - self._heard > limit_s:
            self._hangs = True
            say(f"NVML has not answered for {now - self._heard:.0f} s: a driver call hangs; training goes on")
            self._write({"hangs": True})
        if now - self._window_began >= _WINDOW_S:
            self._write_window()

    def _write_window(self) -> None:
        seconds = time.monotonic() - self._window_began
        self._window_began = time.monotonic()
        if self._window:
            self._write({"seconds": round(seconds, 1), **GpuUsage.mean(self._window).record()})
            self._window = []

    def _write(self, record: dict[str, Any]) -> None:
        if self._out:
            self._out.write(json.dumps({"time": time.time(), **record}) + "\n")
            self._out.flush()


def driver_is_here() -> bool:
    """Whether there is an NVML library; loading it asks the driver nothing."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True
