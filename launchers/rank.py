"""One rank of a run: says in the ledger that it starts and how it ends, and runs the trainer in between."""

import importlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..config.errors import CannotWrite, UnhealthyNode, UserError
from ..config.loading import load_frozen
from ..config.rundir import RunDir
from ..config.verdicts import CRASHED, DISK_REFUSED, DO_NOT_RESTART, HUNG, SAVED, UNHEALTHY
from ..tracking.hang_reports import reported_ranks
from ..tracking.ledger import LedgerWriter, read_ledger
from .lost_nodes import LostNodes, is_superseded
from .processes import is_alive, kill_descendants, start_time
from .rendezvous import Place, join, place_from
from .stop_signals import StopSignals
from .task import TaskEnded, take_signals_back

TRAINER = "trainwright.parallelism.trainer"
ATTEMPT = "TRAINWRIGHT_ATTEMPT"
"""Variable with the number of the attempt, where Slurm has started the job again since it was submitted."""


def run_attempt(run_dir: str, attempt: int) -> int:
    """The task of a training job; returns 0 (finished) or 85 (saved), else raises TaskEnded with the verdict's code.

    The rank's verdict is in the ledger either way, and its log (this process's stdout and stderr) has the traceback.
    """
    take_signals_back()
    signals = StopSignals()
    attempt = int(os.environ.get(ATTEMPT) or attempt)
    run, place = RunDir(Path(run_dir)), place_from(os.environ)
    ledger = LedgerWriter(run, attempt, f"rank-{place.rank:05d}")
    ledger.write("start", **_who(place))
    hung = partial(_hung, run, ledger, attempt, place.rank)
    lost = partial(_leave, run, ledger, attempt, place.rank, CRASHED)
    code, message = _train(run, attempt, place, signals, hung, lost)
    ledger.write("verdict", rank=place.rank, code=code, message=message)
    # Children ignore SIGTERM, so the interpreter would wait for them for ever, and the step with it.
    kill_descendants(os.getpid())
    signals.ignore()
    ledger.write("exit", rank=place.rank, code=code)
    # srun ends the others when one fails, but those that saved leave by themselves
    if code and code != SAVED and not is_superseded(run, attempt):
        raise TaskEnded(code, message or f"rank {place.rank} ended with {code}")
    return code


def _hung(run: RunDir, ledger: LedgerWriter, attempt: int, rank: int, message: str) -> None:
    """End this process, whatever its main thread waits for; called by the watchdog's thread.

    Ranks of this host that do not answer are killed too. Slurm would do it after KillWait; but if that takes longer
    than its MessageTimeout, slurmctld sends the order again a minute later, and it meets the next attempt's step.
    """
    reported = reported_ranks(run, attempt)
    for who in (event.fields for event in read_ledger(run) if event.attempt == attempt and event.event == "start"):
        silent = who["host"] == socket.gethostname() and who["rank"] not in reported
        if silent and is_alive(who["pid"], who["pid_start_time"]):
            os.kill(who["pid"], signal.SIGKILL)
    _leave(run, ledger, attempt, rank, HUNG, message)


def _leave(run: RunDir, ledger: LedgerWriter, attempt: int, rank: int, code: int, message: str) -> None:
    """End this process, whatever its main thread waits for."""
    ledger.write("verdict", rank=rank, code=code, message=message)
    kill_descendants(os.getpid())
    ledger.write("exit", rank=rank, code=code)
    os._exit(0 if is_superseded(run, attempt) else code)


def _train(
    run: RunDir,
    attempt: int,
    place: Place,
    signals: StopSignals,
    hung: Callable[[str], None],
    lost: Callable[[str], None],
) -> tuple[int, str]:
    """Exit code and, if it is not 0, one line that says why."""
    try:
        config = load_frozen(run.attempt_yaml(attempt))
        with LostNodes(run, attempt, place, config.cluster, lost):
            join(place, run.rendezvous(attempt), config.cluster)
            trainer = importlib.import_module(TRAINER)
            ends_at = _ends_at(run, attempt)
            code = trainer.run_rank(run.path, attempt, asked=lambda: signals.caught, ends_at=ends_at, hung=hung)
    except CannotWrite as error:
        print(f"trainwright: {error}", file=sys.stderr)
        return DISK_REFUSED, str(error)
    except UserError as error:
        print(f"trainwright: {error}", file=sys.stderr)
        return DO_NOT_RESTART, str(error)
    except UnhealthyNode as error:  # ranks of other nodes leave too, and go on later
        print(f"trainwright: {error}", file=sys.stderr)
        return UNHEALTHY if error.here else SAVED, str(error)
    except Exception as error:
        traceback.print_exc()
        return CRASHED, " ".join(f"{type(error).__name__}: {error}".split())[:500]
    return int(code), "saved, to go on later" if code == SAVED else ""


def _ends_at(run: RunDir, attempt: int) -> float | None:
    """When the job's time limit ends it, seconds since the epoch; None if it has none."""
    nodes = [event.fields for event in read_ledger(run) if event.attempt == attempt and event.event == "nodes"]
    return nodes[-1]["ends_at"] if nodes else None


def _who(place: Place) -> dict[str, object]:
    pid = os.getpid()
    return {
        "pid": pid,
        "pid_start_time": start_time(pid),
        "pgid": os.getpgid(pid),
        "host": socket.gethostname(),
        "rank": place.rank,
        "job_id": place.job_id,
    }
