"""The dev cluster's network: a bridge, a network namespace and a cable per host, and their names in /etc/hosts."""

import fcntl
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...config.errors import UserError
from .names import ClusterNames

_HOSTS = Path("/etc/hosts")


@contextmanager
def machine_lock() -> Iterator[None]:
    """Hold while names are chosen and made, or /etc/hosts is written: clusters in other folders do the same."""
    with Path("/run/trainwright-dev-cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def namespaces_possible() -> bool:
    """Whether this machine lets us make network and UTS namespaces and bridges."""
    probe = "twdev-probe"
    try:
        made = _ip("netns", "add", probe)
        works = made and subprocess.run(inside(probe, ["true"]), capture_output=True, check=False).returncode == 0
        works = works and _ip("-n", probe, "link", "set", "lo", "up")  # not in a chroot: its / is no mount
        bridge = works and _ip("link", "add", probe, "type", "bridge")
    except FileNotFoundError:  # no iproute2 or util-linux
        return False
    _ip("link", "del", probe)
    _ip("netns", "del", probe)
    return bridge


def free_index() -> int:
    """Smallest number whose bridge name and addresses nobody uses here."""
    try:
        shown = subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True, check=True).stdout
        shown += subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        shown = ""
    shown += _hosts_text()
    for index in range(250):
        if not re.search(rf"\btwdev{index}\b|\b10\.213\.{index}\.", shown):
            return index
    raise UserError("cluster dev", "250 dev clusters are up", "take some down with `trainwright cluster dev down`")


def create(names: ClusterNames) -> None:
    """Make bridge, namespaces, cables and addresses."""
    _must("link", "add", names.bridge, "type", "bridge")
    _must("addr", "add", f"{names.bridge_address}/24", "dev", names.bridge)
    _must("link", "set", names.bridge, "up")
    for host, address in names.hosts.items():
        veth = names.veth(host)
        _must("netns", "add", host)
        _must("link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", host)
        _must("link", "set", veth, "master", names.bridge)
        _must("link", "set", veth, "up")
        for command in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
        ):
            _must("-n", host, *command)


def remove(names: ClusterNames) -> None:
    """Remove what `create` made, as far as it is there."""
    for host in names.hosts:
        _ip("netns", "del", host)
        _ip("link", "del", names.veth(host))
    _ip("link", "del", names.bridge)


def set_cable(names: ClusterNames, host: str, *, up: bool) -> None:
    """Plug a host's cable into the bridge, or pull it."""
    _must("link", "set", names.veth(host), "up" if up else "down")


def namespace_pids(host: str) -> list[int]:
    """Ids of all processes that live in a host's namespace."""
    done = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


def inside(host: str, command: list[str]) -> list[str]:
    """Command line that runs `command` in a host's network namespace under the host's own name."""
    renamed = ["sh", "-c", 'hostname "$0" && exec "$@"', host, *command]
    # Not `ip netns exec`: it mounts a fresh /sys without the cgroups that slurmd asks for.
    return ["nsenter", f"--net=/run/netns/{host}", "unshare", "--uts", *renamed]


def add_hosts(names: ClusterNames) -> None:
    """Add the cluster's names to /etc/hosts (in place: in containers it is a mount that cannot be replaced)."""
    old = _hosts_text()
    lines = [f"{address} {host} {names.hosts_mark}\n" for host, address in names.hosts.items()]
    with _HOSTS.open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(("" if old.endswith("\n") or not old else "\n") + "".join(lines))


def remove_hosts(names: ClusterNames) -> None:
    """Take the cluster's names out of /etc/hosts."""
    old = _hosts_text()
    new = "".join(line for line in old.splitlines(keepends=True) if not line.rstrip().endswith(names.hosts_mark))
    if new != old:
        _HOSTS.write_text(new, encoding="utf-8", errors="surrogateescape")


def _hosts_text() -> str:
    """The file as it is; a container made by hand may have none."""
    return _HOSTS.read_text(encoding="utf-8", errors="surrogateescape") if _HOSTS.exists() else ""


def _ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0


def _must(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            "cluster dev",
            f"`ip {' '.join(words)}` says {done.stderr.strip()!r}",
            "try `trainwright cluster dev up --loopback`",
        )
