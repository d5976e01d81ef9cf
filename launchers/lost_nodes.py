"""A job that Slurm ends with a dead node: the ranks that are left go at once, and it starts again soon.

Left alone, they would wait for those that are gone until Slurm kills them after KillWait (30 s unless changed). And
Slurm holds a job that it has requeued itself back for two minutes, unless a start time lies ahead when the job is over.
The batch script sees to both; where it was on the dead node, the first rank of the second node.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..config.cluster import ClusterConfig
from ..config.rundir import RunDir
from .cluster_config import read_settings
from .healing import kept_away
from .rendezvous import Place
from .scontrol import ControlRefused, JobControl, host_list
from .slurm import Slurm, SlurmUnreachable

_LEAVE_S = 15
"""Seconds for ranks to see that a node is lost, and for Slurm to see that they are gone."""
_TOGETHER_S = 1.5
"""After so many seconds all of them leave. Where srun cannot be reached, what is said of each later one takes long."""
_MARGIN_S = 5
_LOOKS_EVERY_S = 10
"""So often slurmd looks whether a job's processes are gone, after ten seconds of looking every second."""
_LOOK_S = 0.5
_PATIENCE_S = 20.0  # of those who would be killed before long

_AT = "@"  # no host name has it
_UNUSED = ("down", "drain", "fail", "not_responding", "unknown", "reboot", "power")


def unused_nodes(slurm: Slurm, nodes: Sequence[str]) -> list[str]:
    """Those nodes that Slurm does not use now; none if it does not say."""
    states = _states(slurm, nodes)
    return [node for node in nodes if states.get(node, "").startswith(_UNUSED) or "*" in states.get(node, "")]


def dead_nodes(slurm: Slurm, nodes: Sequence[str]) -> list[str]:
    """Those nodes that Slurm has given up, with all that ran there; none if it does not say."""
    states = _states(slurm, nodes)
    return [node for node in nodes if states.get(node, "").startswith("down")]


def _states(slurm: Slurm, nodes: Sequence[str]) -> dict[str, str]:
    if not nodes:
        return {}
    try:
        done = slurm.ask(["sinfo", "--noheader", "--Node", f"--nodes={','.join(nodes)}", "--format=%N %T"])
    except SlurmUnreachable:
        return {}
    pairs = (line.split() for line in done.stdout.splitlines())
    return {pair[0]: pair[1].lower() for pair in pairs if len(pair) == 2}


def start_soon(
    run: RunDir, attempt: int, cluster: ClusterConfig, job_id: str, dead: Sequence[str], *, without_srun: bool = False
) -> None:
    """Have a job that is being ended start again as soon as it is over, if it was requeued; tell its ranks of `dead`.

    `without_srun`: the batch host is among them, and its srun with it. Raises SlurmUnreachable, before the ranks are
    told: they would leave to no purpose.
    """
    slurm = Slurm(cluster)
    if not dead:
        seconds = read_settings(slurm).kill_wait_s + _MARGIN_S
    else:
        seconds = max(_LEAVE_S, read_settings(slurm).unreached_srun_s + _LOOKS_EVERY_S) if without_srun else _LEAVE_S
    control = JobControl(slurm, job_id, _PATIENCE_S)
    try:
        control.update(StartTime=f"now+{seconds}seconds")
        control.update(ExcNodeList=host_list(kept_away(run, cluster)))
    except ControlRefused:
        return  # it was not requeued, or is over
    if dead:
        beside = run.lost_nodes(attempt).with_suffix(f".{os.getpid()}")
        lines = [f"{_AT}{time.time() + _TOGETHER_S:.3f}", *dead]
        beside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        beside.rename(run.lost_nodes(attempt))


def is_superseded(run: RunDir, attempt: int) -> bool:
    """Whether Slurm has given up this node, or started the job again since.

    A rank that fails then must not say so: its srun would end the job's step, which is that of its successors, as soon
    as the node is reached again.
    """
    return run.attempts()[-1] > attempt or os.environ.get("SLURMD_NODENAME") in _read(run.lost_nodes(attempt))


class LostNodes:
    """Ends this rank when Slurm ends the job since another node is dead. Make it in the main thread.

    The main thread may wait in a collective for ranks that are gone, where no handler of Python's would ever run; so
    the signal is read from a file descriptor, by a thread.
    """

    def __init__(
        self, run: RunDir, attempt: int, place: Place, cluster: ClusterConfig, leave: Callable[[str], None]
    ) -> None:
        """`leave` is called in the thread, with why, and must not return."""
        self._marker, self._leave = run.lost_nodes(attempt), leave
        self._over = threading.Event()
        self._look_after: Callable[[], None] = lambda: None
        if place.is_deputy:
            self._look_after = lambda: _stand_in(run, attempt, cluster, place)
        self._signals, tell = os.pipe()
        os.set_blocking(tell, False)
        signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        threading.Thread(target=self._wait, name="lost-nodes", daemon=True).start()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        """From here on this rank ends by itself."""
        self._over.set()

    def _wait(self) -> None:
        while signal.SIGTERM not in os.read(self._signals, 64):
            pass
        self._look_after()
        while not self._over.wait(_LOOK_S):
            dead = _read(self._marker)
            if not dead:
                continue
            self._over.wait(max(0.0, min(_TOGETHER_S, _leave_at(self._marker) - time.time())))
            if not self._over.is_set():
                self._leave(f"Slurm has given up a node of this job: {', '.join(dead)}")


def _stand_in(run: RunDir, attempt: int, cluster: ClusterConfig, place: Place) -> None:
    """For the batch script, where its node is dead."""
    dead = dead_nodes(Slurm(cluster), place.hosts)
    if place.hosts[0] in dead and place.job_id:
        try:
            start_soon(run, attempt, cluster, place.job_id, dead, without_srun=True)
        except SlurmUnreachable as error:
            print(f"trainwright: {error}", flush=True)


def _read(marker: Path) -> list[str]:
    return [word for word in _words(marker) if not word.startswith(_AT)]


def _leave_at(marker: Path) -> float:
    """When ranks leave, in seconds since the epoch; 0 if it is not said."""
    return next((float(word.removeprefix(_AT)) for word in _words(marker) if word.startswith(_AT)), 0.0)


def _words(marker: Path) -> list[str]:
    try:
        return marker.read_text(encoding="utf-8").split()
    except OSError:
        return []
