"""A run that is ended while its controller still imports what the ranks need: nothing has begun, nothing finished."""

import os
import signal
from pathlib import Path

import pytest

from trainwright.config.loading import load_run
from trainwright.launchers.cancel import cancel_run
from trainwright.launchers.follow import wait_for_end
from trainwright.launchers.processes import wait_until
from trainwright.launchers.submission import submit_run

pytestmark = pytest.mark.ranks


def _listens(pid: int) -> bool:
    """Whether the process has a handler for SIGTERM, as the controller has from its first lines on."""
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("how", ["cancel", "cancel --save", "signal"])
def test_before_the_first_rank(how: str, trainable: Path) -> None:
    submitted = submit_run(load_run(trainable, []), source=trainable)
    assert submitted.pid is not None
    pid = submitted.pid
    assert wait_until(lambda: _listens(pid), 30)
    if how == "signal":
        os.kill(pid, signal.SIGTERM)
        assert wait_for_end(submitted.run_dir, print).state == "failed"
    else:
        assert cancel_run(submitted.run_dir, save=how != "cancel").state == "cancelled"
