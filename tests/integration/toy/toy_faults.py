"""Faults of a rank, and its two forked children, whatever engine computes.

A file fault-RANK in $TOY_FAULTS does what it says, once: `exit N`, a hang of toy_hangs; `kill-in-save`, `full` and
`hang-in-save` wait for its next checkpoint (the second does not fit the disk). `at N ...` waits for the Nth step. While
the file `hold` is there, every rank waits after 50 steps.
"""

import errno
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

from toy_hangs import HANGS  # type: ignore[import-not-found]


class Faults:
    """What is ordered of one rank."""

    def __init__(self, rank: int) -> None:
        self._rank, self._steps, self._at_save = rank, 0, ""
        self._folder = Path(os.environ["TOY_FAULTS"])
        self.order = ""
        """The newest order that an engine has to see to itself."""
        context = multiprocessing.get_context("fork")
        for _ in range(2):  # what data workers would be: they must not act on signals, nor outlive the rank
            context.Process(target=time.sleep, args=(3600,), daemon=True).start()

    def before_step(self) -> None:
        self._steps += 1
        while self._steps > 50 and (self._folder / "hold").exists():
            time.sleep(0.05)
        self._act()

    def before_save(self) -> None:
        if self._at_save == "kill-in-save":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._at_save == "hang-in-save":
            HANGS["hang"](self._rank)
        if self._at_save == "full":
            self._at_save = ""
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "checkpoint")

    def _act(self) -> None:
        order = self._folder / f"fault-{self._rank}"
        try:
            words = order.read_text().split()
        except FileNotFoundError:
            return
        if words[0] == "at":
            if self._steps < int(words[1]):
                return
            words = words[2:]
        order.unlink()
        print("fault:", *words, file=sys.stderr, flush=True)
        if words[0] in HANGS:
            HANGS[words[0]](self._rank)
        if words[0] == "exit":
            os._exit(int(words[1]))
        self.order = self._at_save = words[0]
