"""What is written down of a dev cluster: its names, settings and daemons, in cluster.json of its folder."""

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from ...config.errors import UserError
from .daemons import Daemon
from .names import ClusterNames
from .settings import ClusterSettings


@contextmanager
def locked(folder: Path) -> Iterator[None]:
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


def state_file(folder: Path) -> Path:
    return folder / "cluster.json"


def write_state(names: ClusterNames, started: list[Daemon]) -> None:
    """Replace cluster.json."""
    record = {**asdict(names), "folder": str(names.folder), "daemons": started}
    beside = state_file(names.folder).with_suffix(".new")
    beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    beside.replace(state_file(names.folder))


def read_state(folder: Path) -> tuple[ClusterNames | None, list[Daemon]]:
    """Names and daemons of the cluster in a folder; (None, []) if there is none."""
    try:
        record = json.loads(state_file(folder).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, []
    started = [(str(name), int(pid), int(start)) for name, pid, start in record.pop("daemons")]
    settings = ClusterSettings(**record.pop("settings", {}))
    return ClusterNames(**{**record, "folder": Path(record["folder"]), "settings": settings}), started


def replace_daemon(names: ClusterNames, daemon: Daemon) -> None:
    """Write down that a daemon was started again."""
    _, started = read_state(names.folder)
    write_state(names, [daemon if old[0] == daemon[0] else old for old in started])
