"""What goes wrong on real clusters, done to a dev cluster: a cable pulled, a node killed, a controller away."""

import os
import signal
import subprocess
import time
from pathlib import Path

from ...config.errors import UserError
from ..processes import end_processes, is_alive, start_time, wait_until
from . import daemons, network
from .names import ClusterNames
from .state import locked, read_state, replace_daemon


def names_of(folder: Path) -> ClusterNames:
    """Names of the cluster that is up in a folder; UserError if there is none."""
    names, _ = read_state(folder)
    if names is None:
        raise UserError(str(folder), "there is no dev cluster in it", "start one with `trainwright cluster dev up`")
    return names


def cut(names: ClusterNames, node: str) -> None:
    """Pull a node's cable: its processes go on, and nobody reaches them."""
    network.set_cable(names, _own(names, node), up=False)


def mend(names: ClusterNames, node: str) -> None:
    """Plug a node's cable in again."""
    network.set_cable(names, _own(names, node), up=True)


def kill_node(names: ClusterNames, node: str) -> None:
    """SIGKILL a node's slurmd and slurmstepds, as when they crash: what a job started there goes on, unwatched."""
    killed = []
    for pid in network.namespace_pids(_own(names, node)):
        started = start_time(pid)
        try:
            if started is not None and Path(f"/proc/{pid}/comm").read_text().strip() in ("slurmd", "slurmstepd"):
                os.kill(pid, signal.SIGKILL)
                killed.append((pid, started))
        except (FileNotFoundError, ProcessLookupError):
            continue
    wait_until(lambda: not any(is_alive(*process) for process in killed), 10)


def revive_node(names: ClusterNames, node: str) -> None:
    """Start a node's slurmd again after `kill_node`; returns when it was started, before Slurm has heard of it."""
    with locked(names.folder):
        replace_daemon(names, daemons.start_slurmd(names, _own(names, node)))


def restart_controller(names: ClusterNames, away_s: float = 0.0) -> None:
    """End slurmctld as its host's shutdown would, and start it again with what it had saved; returns when it answers.

    Raises UserError if it does not answer within a minute.
    """
    with locked(names.folder):
        _, started = read_state(names.folder)
        end_processes([(pid, start) for name, pid, start in started if name == names.controller])
        time.sleep(away_s)
        replace_daemon(names, daemons.start_slurmctld(names))
    if not wait_until(lambda: _answers(names), 60, every_s=0.1):
        raise UserError("cluster dev", "the controller does not answer", f"see {names.folder}/log")


def _own(names: ClusterNames, node: str) -> str:
    if names.loopback:
        raise UserError(node, "shares this machine's network", "start the dev cluster without --loopback")
    if node not in names.nodes:
        raise UserError(node, "is no node of the dev cluster", f"give one of {', '.join(names.nodes)}")
    return node


def _answers(names: ClusterNames) -> bool:
    environment = {**os.environ, "SLURM_CONF": str(names.slurm_conf)}
    asked = subprocess.run(["scontrol", "ping"], env=environment, capture_output=True, text=True, check=False)
    return " is UP" in asked.stdout
