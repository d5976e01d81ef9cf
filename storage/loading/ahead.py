"""Reads the next batch while the current one is trained on: one thread, no worker processes."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class _Outcome(NamedTuple, Generic[T]):
    ticket: int
    values: list[T]  # what was read, or nothing
    error: BaseException | None


class Ahead(Generic[T]):
    """Calls `read` with positions that lie `step` apart, always one of them ahead of who asks.

    Two queues and a thread instead of an executor, whose futures cost twice as much for each batch.
    """

    def __init__(self, read: Callable[[int], T], step: int) -> None:
        self._read, self._step = read, step
        self._asked: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        self._outcomes: SimpleQueue[_Outcome[T]] = SimpleQueue()
        self._ticket, self._next = 0, -1
        self._thread = threading.Thread(target=self._work, name="read-ahead", daemon=True)
        self._thread.start()

    def get(self, position: int) -> T:
        """What `read` gives for a position; what it raises is raised here, and only if this position is asked for.

        What was read ahead of a jump is forgotten, even if its position is asked for later.
        """
        expected, self._next = self._next, -1
        result = self._awaited() if expected == position else self._read(position)
        self._ticket, self._next = self._ticket + 1, position + self._step
        self._asked.put((self._ticket, self._next))
        return result

    def close(self) -> None:
        """Wait for what is being read, and end the thread."""
        self._asked.put(None)
        self._thread.join()

    def _awaited(self) -> T:
        """What was asked for last."""
        outcome = self._outcomes.get()
        while outcome.ticket != self._ticket:
            outcome = self._outcomes.get()
        if outcome.error is not None:
            raise outcome.error
        return outcome.values[0]

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            ticket, position = asked
            try:
                self._outcomes.put(_Outcome(ticket, [self._read(position)], None))
            except BaseException as error:
                self._outcomes.put(_Outcome(ticket, [], error))
