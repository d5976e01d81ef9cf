"""What is done to a run, most of it while its ranks wait after their fiftieth step."""

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from trainwright.launchers.dev_cluster import faults
from trainwright.launchers.processes import wait_until

from .faulty_runs import ToyRun
from .sites import Site


def order(words: str, rank: int = 1) -> Callable[[Site, ToyRun], None]:
    """A fault of the toy directory: of this rank's own doing."""
    return lambda site, run: run.fault(rank, words)


def until_told(run: ToyRun, timeout_s: float = 60) -> None:
    """Wait until Slurm has told the ranks, or the batch script, to stop."""
    log = run.run.batch_log(1)
    assert wait_until(lambda: bool(run.events("stopping")) or "got SIG" in log.read_text(), timeout_s), run.explain()


def take_all_nodes(run: ToyRun) -> None:
    """Another job that may preempt it takes all nodes for a moment."""
    run.slurm("sbatch", "--partition=urgent", "--nodes=4", "--exclusive", "--wrap=sleep 2")


def preempt(run: ToyRun) -> None:
    """Another job takes all nodes; returns once the first attempt has been told."""
    take_all_nodes(run)
    until_told(run)


def lose_node(site: Site, run: ToyRun, how: Callable[..., object], rank: int) -> None:
    """Slurm gives up the node of a rank of the newest attempt; returns when another attempt has begun."""
    before = run.attempts()
    with how(site.names, run.hosts(before)[rank]):  # type: ignore[attr-defined]
        assert wait_until(lambda: run.attempts() > before, 400, every_s=0.5), run.explain()


def controller_away(site: Site, seconds: float) -> None:
    """Slurm's controller is away, and comes back."""
    faults.restart_controller(site.names, away_s=seconds)


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


def kill_a_rank(run: ToyRun, rank: int = 1) -> None:
    """SIGKILL for a rank of the newest attempt."""
    os.kill(run.pids(run.attempts())[rank], signal.SIGKILL)


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
