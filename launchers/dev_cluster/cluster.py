"""Bringing the dev cluster up and down: idempotent, complete, under one folder."""

import fcntl
import json
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ...config.errors import UserError
from ..processes import is_alive, wait_until
from . import daemons, network
from .names import ClusterNames


@dataclass(frozen=True, kw_only=True)
class DevClusterStatus:
    """What runs: state is up, down or broken (daemons died, or not all nodes answer)."""

    state: str
    folder: str
    slurm_conf: str
    form: str
    nodes: dict[str, str]
    """Slurm's word for each node, by name."""
    daemons: dict[str, bool]
    """Whether each daemon lives, by name."""


def up(folder: Path, num_nodes: int = 2, loopback: bool = False) -> DevClusterStatus:
    """Start the cluster, or find it up; namespaces where possible, else (or if asked) the loopback form.

    Raises UserError where root or packages are missing, where the folder is not ours, and where a cluster of another
    size is up. After any failure nothing is left running.
    """
    daemons.require_root_and_packages()
    if not 1 <= num_nodes <= 200:
        raise UserError("--nodes", str(num_nodes), "give a number from 1 to 200")
    with _locked(folder):
        now = status(folder)
        if now.state == "up":
            if len(now.nodes) != num_nodes:
                raise UserError("--nodes", f"{num_nodes}, but {len(now.nodes)} are up", "take the cluster down first")
            return now
        _take_down(folder)
        try:
            _bring_up(folder, num_nodes, loopback)
        except BaseException:
            _take_down(folder)
            raise
        return status(folder)


def down(folder: Path) -> bool:
    """End daemons and jobs, remove network, /etc/hosts lines and the folder; whether there was anything."""
    if not folder.exists():
        return False
    if os.geteuid() != 0:
        raise UserError("cluster dev", "ending daemons needs root", "run `sudo trainwright cluster dev down`")
    with _locked(folder):
        was_there = _state_file(folder).exists()
        _take_down(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return was_there


def status(folder: Path) -> DevClusterStatus:
    """The cluster as it is now; any user may ask."""
    names, started = _read_state(folder)
    if names is None:
        return DevClusterStatus(
            state="down", folder=str(folder), slurm_conf=str(folder / "slurm.conf"), form="", nodes={}, daemons={}
        )
    living = {name: is_alive(pid, start) for name, pid, start in started}
    nodes = _node_states(names)
    whole = len(living) == names.num_nodes + 2 and all(living.values())
    good = whole and len(nodes) == names.num_nodes and all(_works(word) for word in nodes.values())
    return DevClusterStatus(
        state="up" if good else "broken",
        folder=str(folder),
        slurm_conf=str(names.slurm_conf),
        form="loopback" if names.loopback else "namespaces",
        nodes=nodes,
        daemons=living,
    )


def _bring_up(folder: Path, num_nodes: int, loopback: bool) -> None:
    with network.machine_lock():
        names = _claim_names(folder, num_nodes, loopback)
    started: list[daemons.Daemon] = []
    for name in ("state", "spool", "log"):
        (folder / name).mkdir(mode=0o755)
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    names.slurm_conf.write_text(names.slurm_conf_text(socket.gethostname(), memory_mb), encoding="utf-8")
    # slurmd loads a cgroup plugin although nothing here uses one; this one starts without mounted cgroups too.
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n", encoding="utf-8")
    started.append(daemons.start_munged(folder))
    _write_state(names, started)
    started.append(daemons.start_slurmctld(names))
    _write_state(names, started)
    for node in names.nodes:
        started.append(daemons.start_slurmd(names, node))
        _write_state(names, started)
    if not wait_until(lambda: status(folder).state == "up", 60, every_s=0.2):
        last = status(folder)
        raise UserError(
            "cluster dev",
            f"the nodes did not come up (nodes {last.nodes}, daemons {last.daemons})",
            f"see {_logs(names)}",
        )


def _claim_names(folder: Path, num_nodes: int, loopback: bool) -> ClusterNames:
    """Choose names, addresses and ports that nobody uses, and make the network."""
    loopback = loopback or not network.namespaces_possible()
    ports = daemons.free_ports(num_nodes + 1) if loopback else [6817, 6818]
    names = ClusterNames(
        folder=folder,
        index=network.free_index(),
        num_nodes=num_nodes,
        loopback=loopback,
        ctl_port=ports[0],
        node_port=ports[1],
    )
    _write_state(names, [])  # before anything exists, so that `down` knows what to look for
    if not loopback:
        network.create(names)
    network.add_hosts(names)
    return names


def _logs(names: ClusterNames) -> str:
    """The daemons' last words, since the folder goes with the cluster."""
    kept = tempfile.mkdtemp(prefix=f"{names.bridge}-logs-")
    shutil.copytree(names.folder / "log", kept, dirs_exist_ok=True)
    return kept


def _take_down(folder: Path) -> None:
    names, started = _read_state(folder)
    if names is not None:
        daemons.end_all(names, started)
        with network.machine_lock():
            network.remove_hosts(names)
            if not names.loopback:
                network.remove(names)
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != "lock":
            entry.unlink()


def _node_states(names: ClusterNames) -> dict[str, str]:
    """Slurm's own words for the nodes; empty while the controller does not answer."""
    command = ["sinfo", "--noheader", "--Node", "--format=%N %T"]
    environment = {**os.environ, "SLURM_CONF": str(names.slurm_conf)}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = (line.split() for line in done.stdout.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _works(word: str) -> bool:
    """`idle*` has not answered yet; `down`, `drained` and `unknown` take no jobs."""
    return word in ("idle", "mixed", "allocated", "completing")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder: it is ours, a real folder, writable by nobody else, and no other up or down is at work."""
    try:
        folder.mkdir(mode=0o755, parents=True)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise UserError(
                str(folder), "is not a folder that only you may write", "remove it, or set TRAINWRIGHT_DEV_CLUSTER"
            ) from None
    folder.chmod(0o755)  # users read slurm.conf and reach the socket, whatever our umask
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(str(folder), "another up or down is at work", "wait until it is done") from None
        yield


def _state_file(folder: Path) -> Path:
    return folder / "cluster.json"


def _write_state(names: ClusterNames, started: list[daemons.Daemon]) -> None:
    record = {**asdict(names), "folder": str(names.folder), "daemons": started}
    beside = _state_file(names.folder).with_suffix(".new")
    beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    beside.replace(_state_file(names.folder))


def _read_state(folder: Path) -> tuple[ClusterNames | None, list[daemons.Daemon]]:
    try:
        record = json.loads(_state_file(folder).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, []
    started = [(str(name), int(pid), int(start)) for name, pid, start in record.pop("daemons")]
    return ClusterNames(**{**record, "folder": Path(record["folder"])}), started
