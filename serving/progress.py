"""Progress with an end time, on stderr: a line that is rewritten on a terminal, a line now and then elsewhere."""

import sys
import time
from types import TracebackType


class BytesProgress:
    """How many bytes of how many, how fast, and when it will be done."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._start = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._interval_s = 0.2 if self._terminal else 10.0
        self._next = self._start + self._interval_s
        self._shown = False

    def update(self, done: int, total: int) -> None:
        """Show the state, if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._interval_s
        speed = done / (now - self._start)
        end = time.strftime("%H:%M:%S", time.localtime(time.time() + (total - done) / speed)) if speed else "unknown"
        line = f"{self._what}: {done / 1e9:.2f} of {total / 1e9:.2f} GB, {speed / 1e6:.0f} MB/s, done at {end}"
        print("\r\x1b[K" + line if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr)
        sys.stderr.flush()
        self._shown = True

    def __enter__(self) -> "BytesProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown and self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Waiting:
    """How long something has been waited for: a line rewritten on a terminal, one line per message elsewhere."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._start = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._last = ""

    def say(self, message: str) -> None:
        """Show what is waited for and, on a terminal, for how long so far."""
        if self._terminal:
            line = f"\r\x1b[K{self._what}: {message} ({time.monotonic() - self._start:.0f} s)"
            print(line, end="", file=sys.stderr, flush=True)
        elif message != self._last:
            print(f"{self._what}: {message}", file=sys.stderr, flush=True)
        self._last = message

    def __enter__(self) -> "Waiting":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._last and self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
