"""What is done to a run whose ranks wait after their fiftieth step."""

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from trainwright.launchers.processes import wait_until

from .faulty_runs import ToyRun


def when_told(run: ToyRun) -> None:
    """Wait until the batch script has passed a signal on to the ranks."""
    assert wait_until(lambda: "got SIGUSR2" in run.run.batch_log(1).read_text(), 60), run.explain()
    time.sleep(3)


def signal_script(run: ToyRun) -> None:
    """Ask the batch script to have all ranks save."""
    run.slurm("scancel", "--signal=USR2", "--batch", run.job_id)
    when_told(run)


def signal_ranks(run: ToyRun) -> None:
    """Ask the ranks themselves."""
    run.slurm("scancel", "--signal=TERM", f"{run.job_id}.0")
    time.sleep(3)


def kill_a_rank(run: ToyRun) -> None:
    """SIGKILL for rank 1 of the first attempt."""
    os.kill(run.pids(1)[1], signal.SIGKILL)


def cancel_and_save(run: ToyRun) -> None:
    """`trainwright cancel --save`; the ranks are released once they were told."""
    with ThreadPoolExecutor(1) as pool:  # the command waits for the end
        command = pool.submit(run.project.user.trainwright, "cancel", "--save", run.run.path, "--json")
        when_told(run)
        run.release()
        assert json.loads(command.result().stdout)["state"] == "cancelled", command.result().stderr


def scancel(run: ToyRun) -> None:
    """Slurm's own command."""
    run.slurm("scancel", run.job_id)


def nothing(run: ToyRun) -> None:
    """It runs to its end."""
