"""The workers of a build: processes of this machine that make parts and shards, or this process where one is enough."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ...config.errors import UserError
from .site import Site, Task, unpack_error
from .workspace import Workspace

Done = Callable[[Task, dict[str, Any]], None]
Passed = Callable[[int], None]
_THREADS = "TOKENIZERS_PARALLELISM"


class Unfinished(UserError):
    """A build that stopped for a reason outside it; what is done is kept."""


class Crew:
    """Does tasks, at most `workers` at once; a context manager that ends its processes."""

    def __init__(self, space: Workspace, workers: int) -> None:
        self._space, self._num_workers = space, workers
        self._workers: list[_Worker] = []
        self._events: queue.SimpleQueue[tuple[_Worker, str, str]] = queue.SimpleQueue()
        self._site: Site | None = None

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def run(self, tasks: Sequence[Task], done: Done, passed: Passed) -> None:
        """Do tasks, begun in order; `done` gets each with its result. Raises the first error that comes up."""
        if self._num_workers == 1 or len(tasks) <= 1:
            self._run_here(tasks, done, passed)
            return
        try:
            self._run_there(tasks, done, passed)
        except BaseException:
            self.end()  # others are still at tasks whose answers nobody waits for
            raise

    def end(self) -> None:
        """Kill the processes; more tasks start new ones."""
        for worker in self._workers:
            worker.end()
        self._workers, self._events = [], queue.SimpleQueue()

    def _run_there(self, tasks: Sequence[Task], done: Done, passed: Passed) -> None:
        while len(self._workers) < min(self._num_workers, len(tasks)):
            self._workers.append(_Worker(self._space, self._events))
        waiting = list(reversed(tasks))
        for worker in self._workers[: len(tasks)]:
            worker.give(waiting.pop())
        left = len(tasks)
        while left:
            worker, word, rest = self._events.get()
            if word == "passed":
                passed(int(rest))
            elif word == "done":
                done(worker.task, json.loads(rest))
                left -= 1
                if waiting:
                    worker.give(waiting.pop())
            elif word == "failed":
                raise unpack_error(rest)
            else:
                raise worker.death()

    def _run_here(self, tasks: Sequence[Task], done: Done, passed: Passed) -> None:
        self._site = self._site or Site(self._space, self._num_workers)
        with _threads(self._num_workers):
            for task in tasks:
                done(task, self._site.do(task, passed))


@contextmanager
def _threads(workers: int) -> Iterator[None]:
    """One worker alone may use as many threads as workers were allowed, and so one thread if it is one."""
    before = os.environ.get(_THREADS)
    if workers == 1:
        os.environ[_THREADS] = "false"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_THREADS, None)
        else:
            os.environ[_THREADS] = before


class _Worker:
    """One process, and the thread that hears it."""

    def __init__(self, space: Workspace, events: "queue.SimpleQueue[tuple[_Worker, str, str]]") -> None:
        self.task: Task = ("", 0)
        # Nothing of the working directory is imported, and each process keeps to one core.
        environment = {**os.environ, _THREADS: "false", "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "trainwright.storage.building.worker", str(space.folder)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        threading.Thread(target=self._hear, args=(events,), daemon=True).start()

    def give(self, task: Task) -> None:
        """Send it a task."""
        self.task = task
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is dead then, which the listening thread says
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()

    def death(self) -> Unfinished:
        """The error for a process that is gone."""
        code = self._process.wait()
        how = f"signal {-code}" if code < 0 else f"code {code}"
        problem = f"a worker ended with {how} at {self.task[0]} {self.task[1]}"
        remedy = "if memory ran out, give fewer; the same command goes on where it was"
        return Unfinished("--workers", problem, remedy)

    def end(self) -> None:
        """Kill it: nothing that it publishes is half done."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()

    def _hear(self, events: "queue.SimpleQueue[tuple[_Worker, str, str]]") -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                word, _, rest = line.partition(" ")
                events.put((self, word, rest))
        except ValueError:
            return  # closed by `end`
        events.put((self, "ended", ""))
