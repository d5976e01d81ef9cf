"""Signals that ask a rank to save and leave. They set a flag, in the rank's own process alone.

Slurm signals every process of a step, data workers and other children too. A forked child ignores these signals, and
the kernel kills it when the rank is gone, so that no child keeps a step alive.
"""

import ctypes
import os
import signal
import threading

_ASKING = (signal.SIGTERM, signal.SIGUSR2)
_PR_SET_PDEATHSIG = 1


class StopSignals:
    """Whether a signal has asked this process to stop. Make it in the main thread, before anything is forked."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._caught = ""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._in_main_thread = False
        for number in _ASKING:
            signal.signal(number, self._catch)
        os.register_at_fork(before=self._before_fork, after_in_child=self._in_child)

    @property
    def caught(self) -> str:
        """Name of the first such signal, such as USR2; empty if there was none."""
        return self._caught

    def ignore(self) -> None:
        """From here on the process ends anyway; the interpreter would undo the handlers before it has."""
        for number in _ASKING:
            signal.signal(number, signal.SIG_IGN)

    def _catch(self, number: int, frame: object) -> None:
        if os.getpid() == self._pid:
            self._caught = self._caught or signal.Signals(number).name.removeprefix("SIG")

    def _before_fork(self) -> None:
        self._in_main_thread = threading.current_thread() is threading.main_thread()

    def _in_child(self) -> None:
        self.ignore()
        if self._in_main_thread:  # the kernel means the thread that forked, which must not be one that ends earlier
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
