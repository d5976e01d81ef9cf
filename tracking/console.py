"""Training as a person watches it: a progress bar on a terminal, plain lines in a log file."""

import sys
import time
from collections import deque
from typing import TextIO

_RECENT = 20  # steps over which speed is averaged
_MIN_PAUSE_S, _MAX_PAUSE_S = 5.0, 60.0  # between plain lines; they get rarer as the run gets longer


def say(text: str) -> None:
    """One line on stderr, whatever breaks `text` has: what a person should know while training goes on."""
    print("trainwright: " + " ".join(text.split()), file=sys.stderr, flush=True)


class StepConsole:
    """Shows loss, tokens per second and time left; on stderr unless another stream is given.

    The first step seen may be any: a resumed run's bar starts where the run goes on.
    """

    def __init__(self, total_steps: int, stream: TextIO | None = None) -> None:
        stream = stream or sys.stderr
        self._total = total_steps
        self._recent: deque[tuple[int, float]] = deque(maxlen=_RECENT)
        self._view: _Bar | _Lines = _Bar(total_steps, stream) if stream.isatty() else _Lines(stream)

    def show(self, step: int, loss: float, tokens: int, seconds: float, more: str = "") -> None:
        """Show a step that took `seconds` and `tokens`; `more` are a few words after the speed."""
        self._recent.append((tokens, seconds))
        recent_s = sum(each for _, each in self._recent) or 1e-9
        tokens_per_s = sum(each for each, _ in self._recent) / recent_s
        left_s = recent_s / len(self._recent) * max(self._total - step, 0)
        text = f"loss {loss:.4f}  {tokens_per_s:,.0f} tokens/s  {more}{'  ' if more else ''}{_clock(left_s)} left"
        self._view.show(step, self._total, text)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._view.close()


class _Bar:
    """A rich progress bar."""

    def __init__(self, total_steps: int, stream: TextIO) -> None:
        from rich.console import Console  # only where there is a terminal: log files need none of it
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(file=stream),
            expand=True,
        )
        self._task = self._progress.add_task("training", total=total_steps, text="first step")
        self._progress.start()

    def show(self, step: int, total: int, text: str) -> None:
        self._progress.update(self._task, completed=step, total=total, text=text)

    def close(self) -> None:
        self._progress.stop()


class _Lines:
    """One line now and then; the first and the last step always have one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._start, self._next = stream, time.monotonic(), 0.0
        self._unsaid = ""

    def show(self, step: int, total: int, text: str) -> None:
        now = time.monotonic() - self._start
        line = f"step {step}/{total}  {text}"
        if now < self._next and step < total:
            self._unsaid = line
            return
        self._next = now + min(_MAX_PAUSE_S, max(_MIN_PAUSE_S, now / 20))
        self._say(line)

    def close(self) -> None:
        if self._unsaid:
            self._say(self._unsaid)

    def _say(self, line: str) -> None:
        self._unsaid = ""
        print(line, file=self._stream, flush=True)


def _clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
