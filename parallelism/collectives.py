"""A record of the collectives that this rank has entered, by process group, so that a hang can name the one it is in.

`install` puts it between torch's process groups and all their callers in Python, whenever those were imported. gloo's
operations block the thread that waits for them; on NCCL a GPU does them later, which torch's flight recorder knows.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch._C import _distributed_c10d as c10d

from ..tracking.hang_reports import Entered, Waiting

_COLLECTIVES = {
    "allreduce": "all_reduce",
    "allreduce_coalesced": "all_reduce",
    "broadcast": "broadcast",
    "reduce": "reduce",
    "allgather": "all_gather",
    "allgather_coalesced": "all_gather",
    "_allgather_base": "all_gather_into_tensor",
    "all_gather_single": "all_gather_into_tensor",
    "all_gather_single_coalesced": "all_gather_into_tensor",
    "allgather_into_tensor_coalesced": "all_gather_into_tensor",
    "gather": "gather",
    "scatter": "scatter",
    "reduce_scatter": "reduce_scatter",
    "_reduce_scatter_base": "reduce_scatter_tensor",
    "reduce_scatter_single": "reduce_scatter_tensor",
    "reduce_scatter_single_coalesced": "reduce_scatter_tensor",
    "reduce_scatter_tensor_coalesced": "reduce_scatter_tensor",
    "alltoall": "all_to_all",
    "alltoall_base": "all_to_all_single",
    "all_to_all_single": "all_to_all_single",
    "barrier": "barrier",
    "monitored_barrier": "monitored_barrier",
}
"""Names of c10d's methods in torch.distributed's words."""
_MOST_UNWAITED = 256
_RECENT = 8


class _Channel:
    """A group's collectives, or what one rank sends to another in a group: both sides count the same operations."""

    def __init__(self, key: str, name: str, ranks: list[int]) -> None:
        self.key, self.name, self.ranks = key, name, ranks
        self.count = 0
        self.recent: deque[str] = deque(maxlen=_RECENT)


_Entry = tuple[_Channel, int, str]


class CollectiveRecord:
    """What was entered last in each group, and what threads are in now. Costs about a microsecond per operation."""

    def __init__(self) -> None:
        self._channels: dict[object, _Channel] = {}
        self._inside: dict[int, _Entry] = {}
        self._unwaited: dict[int, _Entry] = {}
        self.seconds = 0.0
        """Time that threads of this process have spent in operations."""

    def call(self, channel: _Channel, operation: str, start: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Start an operation; the Work that it gives."""
        thread = threading.get_ident()
        channel.count += 1
        channel.recent.append(operation)
        entry = channel, channel.count, operation
        self._inside[thread] = entry
        began = time.perf_counter()
        try:
            work = start(*args, **kwargs)
        finally:
            self._inside.pop(thread, None)
            self.seconds += time.perf_counter() - began
        if work is not None:
            self._unwaited[id(work)] = entry
            if len(self._unwaited) > _MOST_UNWAITED:  # nobody waits for some
                self._unwaited.pop(next(iter(self._unwaited)), None)
        return work

    def wait(self, wait: Callable[..., Any], work: Any, *args: Any, **kwargs: Any) -> Any:
        """Wait for a Work."""
        entry = self._unwaited.pop(id(work), None)
        if entry is None:
            return wait(work, *args, **kwargs)
        thread = threading.get_ident()
        self._inside[thread] = entry
        began = time.perf_counter()
        try:
            return wait(work, *args, **kwargs)
        finally:
            self._inside.pop(thread, None)
            self.seconds += time.perf_counter() - began

    def of_group(self, group: Any) -> _Channel:
        """The channel of a group's collectives."""
        channel = self._channels.get(id(group))
        if channel is None:
            channel = self._channels[id(group)] = _Channel(group.group_name, _name_of(group), _ranks_of(group))
        return channel

    def between(self, group: Any, source: int, target: int) -> _Channel:
        """The channel of what one rank sends to another; both are numbers in the group."""
        key = (id(group), source, target)
        channel = self._channels.get(key)
        if channel is None:
            ends = [_ranks_of(group)[source], _ranks_of(group)[target]]
            name = f"{group.group_name}:{ends[0]}>{ends[1]}"
            channel = self._channels[key] = _Channel(name, _name_of(group), ends)
        return channel

    def waiting(self) -> list[Waiting]:
        """Operations that a thread of this process is in."""
        return [
            Waiting(channel=channel.key, name=channel.name, ranks=channel.ranks, sequence=sequence, operation=operation)
            for channel, sequence, operation in list(self._inside.values())
        ]

    def entered(self) -> dict[str, Entered]:
        """By channel how many operations were entered, and which were the last."""
        return {
            channel.key: Entered(count=channel.count, recent=list(channel.recent))
            for channel in list(self._channels.values())
        }


RECORD = CollectiveRecord()
_installed = False


def install() -> None:
    """Record every operation of this process from here on; a second call does nothing."""
    global _installed
    if _installed:
        return
    _installed = True
    group: Any = c10d.ProcessGroup
    work: Any = c10d.Work
    for method, operation in _COLLECTIVES.items():
        if hasattr(group, method):  # they differ between versions of torch
            setattr(group, method, _collective(getattr(group, method), operation))
    group.send = _peer_to_peer(group.send, "send", sends=True)
    group.recv = _peer_to_peer(group.recv, "recv", sends=False)
    original = work.wait
    work.wait = lambda self, *args, **kwargs: RECORD.wait(original, self, *args, **kwargs)


def _collective(original: Callable[..., Any], operation: str) -> Callable[..., Any]:
    def recorded(self: Any, *args: Any, **kwargs: Any) -> Any:
        return RECORD.call(RECORD.of_group(self), operation, original, self, *args, **kwargs)

    return recorded


def _peer_to_peer(original: Callable[..., Any], operation: str, *, sends: bool) -> Callable[..., Any]:
    def recorded(self: Any, tensors: Any, peer: int, *args: Any, **kwargs: Any) -> Any:
        source, target = (self.rank(), peer) if sends else (peer, self.rank())
        channel = RECORD.between(self, source, target)
        return RECORD.call(channel, operation, original, self, tensors, peer, *args, **kwargs)

    return recorded


def _ranks_of(group: Any) -> list[int]:
    return list(dist.get_process_group_ranks(group))


def _name_of(group: Any) -> str:
    """`tensor model parallel group`, from megatron-core's TENSOR_MODEL_PARALLEL_GROUP."""
    described = str(group.group_desc or "")
    if described == "default_pg":
        return "default group"
    if not described or described == "undefined":
        return f"group {group.group_name}"
    words = described.lower().replace("_", " ")
    return words if "group" in words else f"{words} group"
