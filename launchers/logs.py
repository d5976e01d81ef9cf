"""A log as text."""

from pathlib import Path


def read_log(path: Path) -> str:
    """A log as text; empty if there is none yet."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
