"""Reads the next batch while the current one is trained on: one thread, no worker processes, no queue."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Calls `read` with positions that lie `step` apart, always one of them ahead of who asks."""

    def __init__(self, read: Callable[[int], T], step: int) -> None:
        self._read, self._step = read, step
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._next: tuple[int, Future[T]] | None = None

    def get(self, position: int) -> T:
        """What `read` gives for a position; what it raises is raised here, and only if this position is asked for."""
        waiting, self._next = self._next, None
        result = waiting[1].result() if waiting and waiting[0] == position else self._read(position)
        following = position + self._step
        self._next = following, self._thread.submit(self._read, following)
        return result

    def close(self) -> None:
        """Wait for what is being read, and end the thread."""
        self._thread.shutdown(cancel_futures=True)
