"""What the documentation's pages hold: commands with what they print, files, and the reasons for what is not run.

A `console` block holds commands (lines that begin with `$ `) and below each what it prints: a line `...` stands for any
lines, `...` inside a line for any text; nothing below a command says nothing of what it prints. A block titled
`Not run here: REASON` is not run. A block of another language whose title is a path is a file, written before what
comes after it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOT_RUN = "Not run here: "
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'^ title="([^"]*)"$')


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command of a page."""

    place: str
    """Page and line."""
    text: str
    printed: str
    """What stands below it; empty if nothing does."""
    reason: str
    """Why it is not run; empty if it is."""


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """A file that the reader is to write."""

    name: str
    """Path in the working folder, or one that begins with `~/`."""
    text: str


def read_page(page: Path) -> list[Command | TextFile]:
    """Commands and files of a page, in order. Raises ValueError for a title that is neither."""
    found: list[Command | TextFile] = []
    text = page.read_text(encoding="utf-8")
    for block in _BLOCK.finditer(text):
        language, more, body = block.groups()
        title = _TITLE.match(more)
        line = text.count("\n", 0, block.start()) + 2
        if language == "console":
            reason = title[1].removeprefix(NOT_RUN) if title else ""
            if title and not title[1].startswith(NOT_RUN):
                raise ValueError(f"{page.name}:{line}: a console block's title begins with {NOT_RUN!r}")
            found += _commands(body, f"{page.name}:{line}", reason)
        elif title:
            found.append(TextFile(name=title[1], text=body))
        elif language in ("sh", "shell"):
            raise ValueError(f"{page.name}:{line}: commands go into a console block")
    return found


def _commands(body: str, place: str, reason: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        count = 1
        while lines[count - 1].endswith("\\\n"):
            count += 1
        command, printed = "".join(lines[:count]), "".join(lines[count:])
        yield Command(place=place, text=command.rstrip(), printed=printed.strip("\n"), reason=reason)


def is_printed(expected: str, real: str) -> bool:
    """Whether a command printed what a page says."""
    pattern = ""
    for line in expected.splitlines():
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += re.escape(line.rstrip()).replace(r"\.\.\.", "[^\n]*?") + r"[ ]*\n"
    return re.fullmatch(pattern, real.strip("\n") + "\n") is not None
