"""Ways in which a rank of the toy engine hangs, or makes others hang."""

import ctypes
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist


def _sleep(rank: int) -> None:
    while True:
        time.sleep(1)


def _in_c(rank: int) -> None:
    while True:  # a signal ends it
        ctypes.CDLL(None).pause()


def _in_c_with_pythons_lock(rank: int) -> None:
    while True:
        ctypes.PyDLL(None).pause()


def _stop(rank: int) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _read_a_file(rank: int) -> None:
    pipe = Path(tempfile.mkdtemp()) / "pipe"
    os.mkfifo(pipe)
    pipe.read_text()


def _another_collective(rank: int) -> None:
    dist.broadcast(torch.ones(1), src=(rank + 1) % dist.get_world_size())


def _receive_what_nobody_sends(rank: int) -> None:
    dist.recv(torch.ones(1), src=(rank + 1) % dist.get_world_size())


def _slow(rank: int) -> None:
    time.sleep(5.5)


HANGS: dict[str, Callable[[int], None]] = {
    "hang": _sleep,
    "hang-in-c": _in_c,
    "hang-with-lock": _in_c_with_pythons_lock,
    "stop": _stop,
    "read": _read_a_file,
    "broadcast": _another_collective,
    "receive": _receive_what_nobody_sends,
    "slow": _slow,
}
