"""A rank of this machine as a fork of its controller, which has imported once what every rank needs."""

import importlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import worker


def import_once(modules: Sequence[str]) -> None:
    """Import what the ranks are going to import. What fails here fails in every rank too, and is said there."""
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception:
            return


class ForkedRank:
    """One process that runs the task in `folder`, with its stdout and stderr at the end of `log`."""

    def __init__(self, folder: str, log: Path, variables: Mapping[str, str]) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of NumPy's idle threads
            self.pid = os.fork()
        if self.pid == 0:
            _run(folder, log, variables)
        self._code: int | None = None

    def poll(self) -> int | None:
        """Exit code, or minus the signal that ended it; None while it runs."""
        if self._code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if ended else None
        return self._code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _run(folder: str, log: Path, variables: Mapping[str, str]) -> None:
    """The child: a rank from here on, which never returns to what the controller was doing."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(written, stream)
    os.close(written)
    os.environ.update(variables)
    sys.argv = ["trainwright.launchers.worker", folder]
    sys.exit(_code_of(folder))


def _code_of(folder: str) -> int:
    try:
        return worker.main(folder)
    except Exception:  # as the interpreter would say it, without the frames of the controller
        traceback.print_exc()
        return 1
