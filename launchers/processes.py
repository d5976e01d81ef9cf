"""Processes of this machine, known by process id and start time, so that a recycled id is never taken for ours."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path


def start_time(pid: int) -> int | None:
    """Start of process `pid` in clock ticks since boot; None if there is no such process, or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold blanks and brackets
    return None if fields[0] in "ZX" else int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether the process that had this id at this start time still runs."""
    return start_time(pid) == started


def group_members(pgid: int) -> list[int]:
    """Ids of the living processes in a process group."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                same = os.getpgid(int(entry.name)) == pgid
            except ProcessLookupError:
                continue
            if same and start_time(int(entry.name)) is not None:
                members.append(int(entry.name))
    return members


def kill_descendants(pid: int) -> list[int]:
    """SIGKILL to every process below `pid`, children before theirs; ids of those that were sent it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parent = _parent(int(entry.name))
            if parent is not None:
                children.setdefault(parent, []).append(int(entry.name))
    below, found = [pid], []
    while below:
        some = children.get(below.pop(), [])
        below += some
        found += some
    for each in found:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return found


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[1])


def end_group(pgid: int, grace_s: float = 10.0) -> bool:
    """SIGTERM to a process group, SIGKILL after `grace_s`; whether it is gone.

    The caller checks first, by a member's start time, that the group is the one it means.
    """
    for sign, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(pgid, sign)
        except ProcessLookupError:
            return True
        if wait_until(lambda: not group_members(pgid), patience_s):
            return True
    return False


def end_processes(pids: Iterable[tuple[int, int]], grace_s: float = 5.0) -> None:
    """SIGTERM to each (pid, start time) that still lives, SIGKILL to those left after `grace_s`."""
    known = list(pids)
    for sign, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        living = [pid for pid, started in known if is_alive(pid, started)]
        for pid in living:
            try:
                os.kill(pid, sign)
            except ProcessLookupError:
                continue
        if not living or wait_until(lambda: not any(is_alive(*process) for process in known), patience_s):
            return


def wait_until(done: Callable[[], bool], timeout_s: float, every_s: float = 0.05) -> bool:
    """Ask `done` until it says yes or time is up; its last answer."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True
