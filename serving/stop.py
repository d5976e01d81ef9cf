"""Stopping an endpoint from any shell, and whether one still lives."""

import os
import signal
import socket
from pathlib import Path

from ..config.errors import UserError
from ..launchers.processes import end_processes, is_alive, start_time, wait_until
from .endpoint import DRAIN_S, ENGINE_GRACE_S, EndpointFolder, Started
from .jobs import JobWatch, stop_job

_STOP_S = DRAIN_S + ENGINE_GRACE_S + 15.0


def lives(started: Started | None) -> bool | None:
    """Whether the endpoint's process or job still runs; None if that cannot be known from here."""
    if started is None:
        return False
    if started.job_id is not None:
        return JobWatch(started).lives()
    if started.host != socket.gethostname():
        return None
    return started.pid is not None and started.started is not None and is_alive(started.pid, started.started)


def stop(folder: EndpointFolder) -> None:
    """Let the endpoint finish its requests, then end it and all that it started. Nothing to do if it is gone."""
    started = folder.read_started()
    if started is None:
        return
    if started.job_id is not None:
        stop_job(folder, started)
        return
    if started.host != socket.gethostname():
        raise UserError("NAME", f"its process runs on {started.host}", "stop it there")
    _stop_local(started)
    _remove_socket(folder)


def _stop_local(started: Started) -> None:
    assert started.pid is not None
    pid, began = started.pid, started.started
    if began is not None and is_alive(pid, began):
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_alive(pid, began), _STOP_S, every_s=0.1)
    # Also when the replica was killed: vLLM's processes share its session, whose id cannot be reused while they live.
    end_processes(_session_members(pid))


def _remove_socket(folder: EndpointFolder) -> None:
    """A killed replica could not remove its private folder."""
    status = folder.read_status()
    if status is not None and status.socket is not None:
        socket_path = Path(status.socket)
        socket_path.unlink(missing_ok=True)
        if socket_path.parent.is_dir():
            socket_path.parent.rmdir()


def _session_members(session: int) -> list[tuple[int, int]]:
    """(pid, start) of the living processes of a session."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                same = os.getsid(int(entry.name)) == session
            except (ProcessLookupError, PermissionError):
                continue
            began = start_time(int(entry.name))
            if same and began is not None:
                members.append((int(entry.name), began))
    return members
