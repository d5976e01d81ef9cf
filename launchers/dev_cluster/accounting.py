"""Accounts of a dev cluster: MariaDB with a data folder and a socket of its own, and slurmdbd before it."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from ...config.errors import UserError
from ..processes import start_time, wait_until
from .daemons import Daemon, did_not_start, start_daemon, start_on_host
from .names import ClusterNames
from .slurm_conf import slurmdbd_conf

_PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacctmgr")
_QUICK = (  # a database of a few jobs that need not survive a power cut
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=8M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-lock-wait-timeout=900",
    "--performance-schema=OFF",
)


def require_packages() -> None:
    """UserError with the command to run where a program is missing."""
    missing = [name for name in _PROGRAMS if not shutil.which(name)]
    if missing:
        raise UserError(
            "--accounting",
            f"{', '.join(missing)} not found",
            "run `apt-get install -y slurmdbd mariadb-server` (Debian or Ubuntu) as root",
        )


def start_database(folder: Path) -> Daemon:
    """mariadbd without a network, under Debian's user for it; only root, known by its socket, may log in."""
    place, user = folder / "database", _database_user()
    place.mkdir(mode=0o700)
    os.chown(place, user.pw_uid, user.pw_gid)
    made = subprocess.run(
        ["mariadb-install-db", "--no-defaults", f"--user={user.pw_name}", f"--datadir={place}/data", "--skip-test-db"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        said = (made.stderr.strip() or made.stdout.strip() or "it said nothing").splitlines()[-1]
        raise UserError("--accounting", f"mariadb-install-db: {said}", "see whether the folder's disk has room")
    command = ["mariadbd", "--no-defaults", f"--datadir={place}/data", f"--socket={_socket(folder)}"]
    command += ["--skip-networking", "--skip-log-bin", f"--pid-file={place}/mariadbd.pid", *_QUICK]
    daemon = start_daemon("mariadbd", command, folder, user)
    _until(lambda: _socket(folder).exists(), daemon, folder)
    return daemon


def start_slurmdbd(names: ClusterNames, hostname: str) -> Daemon:
    """slurmdbd on the controller's host, with this cluster added to it."""
    conf = names.folder / "slurmdbd.conf"
    conf.touch(mode=0o600)
    conf.write_text(slurmdbd_conf(names, hostname), encoding="utf-8")
    variables = {"MYSQL_UNIX_PORT": str(_socket(names.folder)), "SLURM_CONF": str(names.slurm_conf)}
    daemon = start_on_host(names, "slurmdbd", names.controller, ["slurmdbd", "-D"], variables)
    _until(lambda: _add_cluster(names), daemon, names.folder)
    return daemon


def _add_cluster(names: ClusterNames) -> bool:
    """Whether slurmdbd knows the cluster now."""
    command = ["sacctmgr", "--immediate", "add", "cluster", "trainwright-dev"]
    environment = {**os.environ, "SLURM_CONF": str(names.slurm_conf)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode == 0 or "already exists" in done.stdout + done.stderr


def _until(ready: Callable[[], bool], daemon: Daemon, folder: Path) -> None:
    name, pid, started = daemon
    wait_until(lambda: ready() or start_time(pid) != started, 60, every_s=0.1)
    if start_time(pid) != started or not ready():
        raise did_not_start(folder, name)


def _socket(folder: Path) -> Path:
    return folder / "database" / "socket"


def _database_user() -> pwd.struct_passwd:
    """Debian's user for it where there is one, else ourselves."""
    try:
        return pwd.getpwnam("mysql")
    except KeyError:
        return pwd.getpwuid(os.geteuid())
