"""Starting munged, slurmctld and slurmd, each in a session of its own, and ending them with what they ran."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from ...config.errors import UserError
from ..processes import end_processes, start_time, wait_until
from . import network
from .names import ClusterNames

Daemon = tuple[str, int, int]
"""Name, process id, start time."""


def require_root_and_packages() -> None:
    """UserError with the command to run where root or packages are missing."""
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # Debian keeps the daemons there
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch", "scontrol") if not shutil.which(name)]
    if missing:
        raise UserError(
            "cluster dev",
            f"{', '.join(missing)} not found",
            "run `apt-get install -y slurm-wlm munge iproute2` (Debian or Ubuntu) as root",
        )
    if os.geteuid() != 0:
        raise UserError("cluster dev", "starting daemons needs root", "run `sudo trainwright cluster dev up`")


def start_munged(folder: Path) -> Daemon:
    """munged with a key and a socket of its own; other users may use the socket, only munged reads the key."""
    place = folder / "munge"
    place.mkdir(mode=0o755)
    key = place / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    user = _munge_user()
    for path in (place, key):
        os.chown(path, user.pw_uid, user.pw_gid)
    paths = [f"--{what}={place}/munge.{end}" for what, end in _MUNGE_FILES]
    command = ["munged", "--foreground", "--num-threads=2", f"--key-file={key}", *paths]
    daemon = start_daemon("munged", command, folder, user)
    _until_there(place / "munge.socket", daemon, folder)
    return daemon


_MUNGE_FILES = (("socket", "socket"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed"))


def start_slurmctld(names: ClusterNames) -> Daemon:
    """The controller, in its own namespace unless all is on the loopback."""
    return start_on_host(names, names.controller, names.controller, ["slurmctld", "-D", "-f", str(names.slurm_conf)])


def start_slurmd(names: ClusterNames, node: str) -> Daemon:
    """One node's daemon, in the node's namespace unless all is on the loopback."""
    (names.folder / "spool" / node).mkdir(mode=0o755, exist_ok=True)
    return start_on_host(names, node, node, ["slurmd", "-D", "-N", node, "-f", str(names.slurm_conf)])


def end_all(names: ClusterNames, daemons: list[Daemon]) -> None:
    """End the daemons and every process that their jobs started."""
    end_processes([(pid, started) for _, pid, started in daemons])
    left = _job_processes(names)
    if not names.loopback:
        left += [pid for host in names.hosts for pid in network.namespace_pids(host)]
    started = [(pid, start_time(pid)) for pid in set(left)]
    end_processes([(pid, start) for pid, start in started if start is not None], grace_s=1.0)


def free_ports(count: int) -> list[int]:
    """Neighbouring free TCP ports on this machine, below the ephemeral range."""
    for first in range(17000, 32000, 50):
        ports = list(range(first, first + count))
        if all(_is_free(port) for port in ports):
            return ports
    raise UserError("cluster dev", f"no {count} neighbouring ports are free", "use fewer nodes")


def start_on_host(
    names: ClusterNames, name: str, host: str, command: list[str], variables: Mapping[str, str] = MappingProxyType({})
) -> Daemon:
    """Start `command` in a host's namespace, or on the loopback; its output goes to log/NAME.out."""
    placed = command if names.loopback else network.inside(host, command)
    return start_daemon(name, placed, names.folder, variables=variables)


def start_daemon(
    name: str,
    command: list[str],
    folder: Path,
    user: pwd.struct_passwd | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Daemon:
    """Start in a session of its own, with few variables; what it prints goes to log/NAME.out."""
    environment = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    with (folder / "log" / f"{name}.out").open("ab") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd="/",
            env={**environment, **variables},
            start_new_session=True,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )
    return name, process.pid, start_time(process.pid) or 0


def did_not_start(folder: Path, name: str) -> UserError:
    """What to say of a daemon that ended or never got ready: the last line that it printed, and where its logs are."""
    said = (folder / "log" / f"{name}.out").read_text(errors="replace").strip()
    last = (said.splitlines() or ["it said nothing"])[-1]
    return UserError("cluster dev", f"{name} did not start ({last})", f"see {kept_logs(folder)}")


def kept_logs(folder: Path) -> str:
    """A copy of all logs, since the folder goes with the cluster."""
    kept = tempfile.mkdtemp(prefix="trainwright-dev-logs-")
    shutil.copytree(folder / "log", kept, dirs_exist_ok=True)
    return kept


def _until_there(path: Path, daemon: Daemon, folder: Path) -> None:
    name, pid, started = daemon
    wait_until(lambda: path.exists() or start_time(pid) != started, 10)
    if not path.exists():
        raise did_not_start(folder, name)


def _munge_user() -> pwd.struct_passwd:
    """Debian's munge user where there is one, else ourselves."""
    try:
        return pwd.getpwnam("munge")
    except KeyError:
        return pwd.getpwuid(os.geteuid())


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _job_processes(names: ClusterNames) -> list[int]:
    """Step daemons and job processes of this cluster: a job's environment names its slurm.conf."""
    mark = f"SLURM_CONF={names.slurm_conf}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            name = (entry / "comm").read_text(errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        in_job = any(variable.startswith(b"SLURM_JOB_ID=") for variable in variables)
        if mark in variables and (in_job or name == "slurmstepd"):
            found.append(int(entry.name))
    return found
