"""A worker process: `python -m trainwright.storage.building.worker FOLDER` does the tasks that its parent sends.

One task per line of its input, as JSON; each line of its output is `passed`, `done` or `failed`. The end of its input,
which is also what a killed parent leaves, ends it at once.
"""

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TextIO

from .site import Site, pack_error
from .workspace import Workspace

_SHOW_EVERY_S = 0.2


def main(folder: str) -> int:
    """Do tasks until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    site: Site | None = None
    while True:
        what, number = json.loads(tasks.get())
        try:
            site = site or Site(Workspace(Path(folder)))
            done = site.do((what, number), _Passed(answers))
            answers.write(f"done {json.dumps(done)}\n")
        except BaseException as error:
            packed = pack_error(error)
            if json.loads(packed)["kind"] == "other":
                traceback.print_exc()
            answers.write(f"failed {packed}\n")


def _listen(tasks: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        tasks.put(line)
    os._exit(0)


class _Passed:
    """Sends the bytes that were passed, now and then."""

    def __init__(self, answers: TextIO) -> None:
        self._answers, self._waiting, self._next = answers, 0, 0.0

    def __call__(self, size: int) -> None:
        self._waiting += size
        if time.monotonic() >= self._next:
            self._answers.write(f"passed {self._waiting}\n")
            self._waiting, self._next = 0, time.monotonic() + _SHOW_EVERY_S


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
