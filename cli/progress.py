"""Progress on stderr: one line that is rewritten on a terminal; elsewhere a line now and then, for logs."""

import sys
import threading
import time
from types import TracebackType
from typing import Self

_TERMINAL_EVERY_S = 0.2
_LOG_EVERY_S = 10.0


class _Line:
    """The line itself."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.every_s = _TERMINAL_EVERY_S if self.terminal else _LOG_EVERY_S
        self.began = time.monotonic()

    def draw(self, text: str) -> None:
        """Put `text` in place of what was there."""
        before, after = ("\r\x1b[K", "") if self.terminal else ("", "\n")
        print(before + text, end=after, file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Waiting(_Line):
    """What is waited for and, on a terminal, for how long so far; in a log, one line per new message."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what, self._last = what, ""

    def say(self, message: str) -> None:
        """Show what is waited for."""
        if self.terminal:
            self.draw(f"{self._what}: {message} ({time.monotonic() - self.began:.0f} s)")
        elif message != self._last:
            self.draw(f"{self._what}: {message}")
        self._last = message


class RunProgress(_Line):
    """State of something that changes all the time; a log gets the newest now and then."""

    def __init__(self) -> None:
        super().__init__()
        self._next, self._last = 0.0, ""

    def show(self, text: str) -> None:
        """Show the newest state, if it is time to."""
        now = time.monotonic()
        if now >= self._next and text != self._last:
            self._next, self._last = now + self.every_s, text
            self.draw(text)


class BytesProgress(_Line):
    """How many bytes of how many, how fast, and when it will be done; nothing for what is over at once."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what, self._next = what, self.began + self.every_s

    def update(self, done: int, total: int) -> None:
        """Show the state, if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self.every_s
        speed = done / (now - self.began)
        end = _clock((total - done) / speed) if speed else "unknown"
        self.draw(f"{self._what}: {done / 1e9:.2f} of {total / 1e9:.2f} GB, {speed / 1e6:.0f} MB/s, done at {end}")


class StageProgress(_Line):
    """Bytes of one stage after another. A thread draws, since a stage may report nothing for minutes."""

    def __init__(self) -> None:
        super().__init__()
        self._state = ("", 0, 0)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        super().__exit__(kind, error, trace)

    def show(self, stage: str, done: int, total: int) -> None:
        """Report `done` of `total` bytes of a stage; total 0 where its length is not known."""
        if stage != self._state[0]:
            self.began = time.monotonic()
        self._state = (stage, done, total)

    def say(self, text: str) -> None:
        """A line that stays."""
        print(("\r\x1b[K" if self.terminal else "") + text, file=sys.stderr, flush=True)

    def _draw(self) -> None:
        while not self._done.wait(self.every_s):
            self.draw(self._text())

    def _text(self) -> str:
        (stage, done, total), spent_s = self._state, time.monotonic() - self.began
        if not 0 < done < total:
            return f"{stage or 'look for files'}, {spent_s:.0f} s so far"
        left_s = spent_s * (total - done) / done
        if stage == "write":
            return f"write, {done:,} of {total:,} shards, {left_s:.0f} s left, ends at {_clock(left_s)}"
        return f"{stage} {done / 1e6:,.1f} of {total / 1e6:,.1f} MB, {left_s:.0f} s left, ends at {_clock(left_s)}"


def _clock(in_s: float) -> str:
    """Time of day so many seconds from now."""
    return time.strftime("%H:%M:%S", time.localtime(time.time() + in_s))
