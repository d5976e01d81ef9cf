"""Reads the next batches while the current one is trained on: one thread, no worker processes."""

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
# To wake a thread, and to be woken, takes as long as to read a small batch: several of those are handed over at a time.
_GROUP_SECONDS = 0.0005
_MAX_GROUP = 8


class _Group(NamedTuple, Generic[T]):
    """Batches at consecutive positions, and what was raised at the one after them."""

    ticket: int
    values: list[T]
    error: BaseException | None


class Ahead(Generic[T]):
    """Calls `read` with positions that lie `step` apart, always ahead of who asks.

    By one batch, or by up to 16 if they are read in less than half a millisecond together, 8 by 8. Two queues and a
    thread instead of an executor, whose futures cost twice as much.
    """

    def __init__(self, read: Callable[[int], T], step: int) -> None:
        self._read, self._step = read, step
        self._asked: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        self._groups: SimpleQueue[_Group[T]] = SimpleQueue()
        self._ready: deque[T] = deque()
        self._error: BaseException | None = None  # raised after what is ready
        self._ticket, self._next = 0, -1  # another ticket after each jump
        self._thread = threading.Thread(target=self._work, name="read-ahead", daemon=True)
        self._thread.start()

    def get(self, position: int) -> T:
        """What `read` gives for a position; what it raises is raised here, and only if this position is asked for.

        What was read ahead of a jump is forgotten, even if its position is asked for later.
        """
        expected, self._next = self._next, -1
        if expected == position:
            result = self._ready.popleft() if self._ready else self._awaited(position)
        else:
            self._forget()
            result = self._read(position)
            self._asked.put((self._ticket, position + self._step))
        self._next = position + self._step
        return result

    def close(self) -> None:
        """Wait for what is being read, and end the thread."""
        self._forget()
        self._asked.put(None)
        self._thread.join()

    def _forget(self) -> None:
        self._ticket += 1
        self._ready.clear()
        self._error = None

    def _awaited(self, position: int) -> T:
        """The first batch of the group that begins at a position; the next group is asked for."""
        if self._error is None:
            group = self._groups.get()
            while group.ticket != self._ticket:
                group = self._groups.get()
            self._ready.extend(group.values)
            self._error = group.error
            if self._error is None:
                self._asked.put((self._ticket, position + len(self._ready) * self._step))
        if not self._ready and self._error is not None:
            raise self._error
        return self._ready.popleft()

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            self._groups.put(self._read_group(*asked))

    def _read_group(self, ticket: int, position: int) -> _Group[T]:
        values: list[T] = []
        stop = perf_counter() + _GROUP_SECONDS
        while ticket == self._ticket and len(values) < _MAX_GROUP and (not values or perf_counter() < stop):
            try:
                values.append(self._read(position + len(values) * self._step))
            except BaseException as error:
                return _Group(ticket, values, error)
        return _Group(ticket, values, None)
