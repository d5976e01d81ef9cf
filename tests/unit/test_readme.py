"""The README names each file in one line, and every command that it shows is one that the command line takes."""

import re
import shlex
from pathlib import Path

import pytest

from trainwright.cli.main import COMMANDS, build_parser

from .test_imports import ROOT, modules

README = (ROOT / "README.md").read_text(encoding="utf-8")
LISTED = set(re.findall(r"^\| `([\w/.-]+\.(?:py|sbatch|json|yaml))` \|", README, flags=re.MULTILINE))
# An indented command, or one in backticks; a comment after it is not part of it.
SHOWN = [
    line.split("  #")[0].strip("`") for line in re.findall(r"^    (trainwright [^\n]+)", README, flags=re.MULTILINE)
]
SHOWN += re.findall(r"`(trainwright [a-z][^`]+)`", README.partition("## Where things are")[0])


def test_every_file_has_its_line_and_every_line_its_file() -> None:
    files = {path.relative_to(ROOT).as_posix() for path, _ in modules() if path.name != "__init__.py"}
    files |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "sbatch_templates").glob("*.sbatch")}
    assert files - LISTED == set()
    assert [name for name in sorted(LISTED) if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("command", SHOWN)
def test_the_commands_shown_are_understood(command: str) -> None:
    arguments = build_parser().parse_args(shlex.split(command)[1:])
    assert arguments.command in COMMANDS


def test_a_days_use_shows_every_command() -> None:
    shown = {shlex.split(command)[1] for command in SHOWN}
    assert set(COMMANDS) - shown <= {"quickstart"}


def test_links_lead_somewhere() -> None:
    for page in ROOT.glob("*.md"):  # mkdocs holds those of docs/
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / Path(target)).exists(), f"{page.name}: {target}"
