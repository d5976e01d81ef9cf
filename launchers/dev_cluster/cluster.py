"""Bringing the dev cluster up and down: idempotent, complete, under one folder."""

import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from ...config.errors import UserError
from ..processes import is_alive, wait_until
from . import accounting, daemons, network
from .names import ClusterNames
from .settings import ClusterSettings
from .slurm_conf import gres_conf, slurm_conf
from .state import locked, read_state, state_file, write_state

_DEFAULT = ClusterSettings()


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


def up(
    folder: Path, num_nodes: int = 2, loopback: bool = False, settings: ClusterSettings = _DEFAULT
) -> DevClusterStatus:
    """Start the cluster, or find it up; namespaces where possible, else (or if asked) the loopback form.

    Raises UserError where root or packages are missing, where the folder is not ours, and where a cluster of another
    size or with other settings is up. After any failure nothing is left running.
    """
    daemons.require_root_and_packages()
    if settings.accounting != "none":
        accounting.require_packages()
    if not 1 <= num_nodes <= 200:
        raise UserError("--nodes", str(num_nodes), "give a number from 1 to 200")
    with locked(folder):
        now = status(folder)
        if now.state == "up":
            if len(now.nodes) != num_nodes:
                raise UserError("--nodes", f"{num_nodes}, but {len(now.nodes)} are up", "take the cluster down first")
            _require_same(folder, settings)
            return now
        _take_down(folder)
        try:
            _bring_up(folder, num_nodes, loopback, settings)
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
    with locked(folder):
        was_there = state_file(folder).exists()
        _take_down(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return was_there


def status(folder: Path) -> DevClusterStatus:
    """The cluster as it is now; any user may ask."""
    names, started = read_state(folder)
    if names is None:
        return DevClusterStatus(
            state="down", folder=str(folder), slurm_conf=str(folder / "slurm.conf"), form="", nodes={}, daemons={}
        )
    living = {name: is_alive(pid, start) for name, pid, start in started}
    nodes = _node_states(names)
    expected = names.num_nodes + (2 if names.settings.accounting == "none" else 4)
    whole = len(living) == expected and all(living.values())
    good = whole and len(nodes) == names.num_nodes and all(_works(word) for word in nodes.values())
    return DevClusterStatus(
        state="up" if good else "broken",
        folder=str(folder),
        slurm_conf=str(names.slurm_conf),
        form="loopback" if names.loopback else "namespaces",
        nodes=nodes,
        daemons=living,
    )


def _require_same(folder: Path, settings: ClusterSettings) -> None:
    """UserError if the cluster that is up has other settings."""
    names, _ = read_state(folder)
    now = names.settings if names else settings
    for field in fields(ClusterSettings):
        asked, there = getattr(settings, field.name), getattr(now, field.name)
        if asked != there:
            raise UserError(
                "cluster dev", f"is up with {field.name} {there}, not {asked}", "take the cluster down first"
            )


def _bring_up(folder: Path, num_nodes: int, loopback: bool, settings: ClusterSettings) -> None:
    with network.machine_lock():
        names = _claim_names(folder, num_nodes, loopback, settings)
    started: list[daemons.Daemon] = []
    for name in ("state", "spool", "log"):
        (folder / name).mkdir(mode=0o755)
    _write_configuration(names)
    for start in _starts(names):
        started.append(start())
        write_state(names, started)
    if not wait_until(lambda: status(folder).state == "up", 60, every_s=0.2):
        last = status(folder)
        raise UserError(
            "cluster dev",
            f"the nodes did not come up (nodes {last.nodes}, daemons {last.daemons})",
            f"see {daemons.kept_logs(folder)}",
        )


def _starts(names: ClusterNames) -> Iterator[Callable[[], daemons.Daemon]]:
    """How each daemon is started, in order: each needs those before it."""
    yield lambda: daemons.start_munged(names.folder)
    if names.settings.accounting != "none":
        yield lambda: accounting.start_database(names.folder)
        yield lambda: accounting.start_slurmdbd(names, socket.gethostname())
    yield lambda: daemons.start_slurmctld(names)
    for node in names.nodes:
        yield partial(daemons.start_slurmd, names, node)


def _write_configuration(names: ClusterNames) -> None:
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    names.slurm_conf.write_text(slurm_conf(names, socket.gethostname(), memory_mb), encoding="utf-8")
    # slurmd loads a cgroup plugin although nothing here uses one; this one starts without mounted cgroups too.
    (names.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n", encoding="utf-8")
    if names.settings.gpus_per_node:
        _make_devices(names)
        (names.folder / "gres.conf").write_text(gres_conf(names), encoding="utf-8")


def _make_devices(names: ClusterNames) -> None:
    """Character devices, since Slurm counts only GPUs that have a file."""
    names.devices.mkdir(mode=0o755)
    for number in range(names.settings.gpus_per_node):
        try:
            os.mknod(names.devices / f"gpu{number}", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            raise UserError(
                "--gpus", f"no device files can be made in {names.devices}", "start it where mknod is allowed"
            ) from None


def _claim_names(folder: Path, num_nodes: int, loopback: bool, settings: ClusterSettings) -> ClusterNames:
    """Choose names, addresses and ports that nobody uses, and make the network."""
    loopback = loopback or not network.namespaces_possible()
    ports = daemons.free_ports(num_nodes + 2) if loopback else [6817, 6818, 6819]
    names = ClusterNames(
        folder=folder,
        index=network.free_index(),
        num_nodes=num_nodes,
        loopback=loopback,
        ctl_port=ports[0],
        node_port=ports[1],
        dbd_port=ports[-1],
        settings=settings,
    )
    write_state(names, [])  # before anything exists, so that `down` knows what to look for
    if not loopback:
        network.create(names)
    network.add_hosts(names)
    return names


def _take_down(folder: Path) -> None:
    names, started = read_state(folder)
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
