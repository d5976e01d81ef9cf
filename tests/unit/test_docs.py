"""The documentation's site builds without network or warnings, loads nothing from outside, and leaves nothing out."""

import argparse
import ast
import html
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import get_origin

import pytest
from pydantic import BaseModel

from trainwright.cli.main import build_parser
from trainwright.config.run import RunConfig

from ..docs_pages import DOCS, ROOT, Command, is_printed, read_page

_PAGES = sorted(DOCS.rglob("*.md"))
_TEXT = {page.relative_to(DOCS).as_posix(): page.read_text(encoding="utf-8") for page in _PAGES}
_NOT_RUN = {  # every one needs its reason in the page
    "make quickstart",
    "make test",
    "trainwright sync myrun",
    "trainwright evaluate exported/measured --tasks arc_easy,hellaswag --limit 100 --json",
    "trainwright data copy stores/code.zarr s3://bucket/stores/code.zarr",
    "trainwright data verify s3://bucket/stores/code.zarr",
    "trainwright doctor --profile mysite",
    "trainwright sweep run.yaml cluster.profile=big train.optimizer.lr=1e-3,3e-4 train.seed=1,2,3 --at-once 4",
    "trainwright serve two-nodes --profile dev",
    "trainwright serve --stop two-nodes",
    "trainwright submit run.yaml cluster.profile=dev --then 'serve --name chat'",
    "trainwright submit run.yaml --host me@login.example.org --host-python /shared/me/venv/bin/python",
    "trainwright status myrun --host me@login.example.org --host-python /shared/me/venv/bin/python",
}
_LOADS = dict.fromkeys(("script", "img", "iframe", "source", "video", "audio", "embed"), "src")
_FOLDERS = "config|tracking|storage|parallelism|launchers|serving|sbatch_templates|cli|tests|examples|presets"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built in a network namespace without a network where this machine allows one."""
    folder = tmp_path_factory.mktemp("site")
    alone = ["unshare", "--net"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        alone = []
    command = [*alone, sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder


def test_nothing_is_loaded_from_outside(site: Path) -> None:
    pages, styles = list(site.rglob("*.html")), list(site.rglob("*.css"))
    assert len(pages) > len(_PAGES)
    assert styles
    for page in pages:
        for target in loaded(page.read_text(encoding="utf-8")):
            assert not re.match(r"\w+:|//", target), f"{page.name} loads {target}"
    for style in styles:
        found = re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^\"')]+", style.read_text(encoding="utf-8"))
        assert not found, f"{style.name} loads {found}"


def loaded(page: str) -> list[str]:
    """Addresses that a browser fetches by itself when it shows a page."""
    found: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            given = dict(attributes)
            target = given.get(_LOADS.get(tag, ""))
            if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
                target = given.get("href")
            if target:
                found.append(target)

    Parser().feed(page)
    assert found
    return found


def test_every_field_is_in_the_reference(site: Path) -> None:
    page = html.unescape((site / "run-file.html").read_text(encoding="utf-8"))
    fields = dict(run_file_fields(RunConfig, ""))
    assert len(fields) > 50
    for dotted, sentence in fields.items():
        assert f'id="{dotted}"' in page, dotted
        assert " ".join(sentence.replace("`", "").split()) in re.sub(r"</?code>", "", page), dotted


def run_file_fields(section: type[BaseModel], path: str) -> Iterator[tuple[str, str]]:
    """Dotted name and sentence of every field, sections included."""
    sentences = dict(_sentences(section))
    for name, field in section.model_fields.items():
        yield f"{path}{name}", sentences[name]
        inner = field.annotation
        items = getattr(inner, "__args__", ())
        if items and isinstance(items[0], type) and issubclass(items[0], BaseModel):
            place = f"{path}{name}.0." if get_origin(inner) is list else f"{path}{name}."  # else it may be null
            yield from run_file_fields(items[0], place)
        elif isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from run_file_fields(inner, f"{path}{name}.")


def _sentences(section: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Each field with the text below it, inherited ones included."""
    for parent in section.__bases__:
        if issubclass(parent, BaseModel) and parent is not BaseModel:
            yield from _sentences(parent)
    [found] = ast.parse(inspect.getsource(section)).body
    assert isinstance(found, ast.ClassDef)
    for pair in pairwise(found.body):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(sentence))):
                yield name, inspect.cleandoc(sentence)


def test_every_option_is_in_the_reference(site: Path) -> None:
    page = html.unescape((site / "commands.html").read_text(encoding="utf-8"))
    options = dict.fromkeys(command_options(build_parser()))
    assert len(options) > 40
    for command, option in options:
        section = page.partition(f"<code>{command}</code>")[2].partition("<h2")[0]
        assert option in section, f"{command}: {option}"


def command_options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Command and option (or command inside it), for all commands."""
    for action in parser._actions:
        for option in (*action.option_strings, *(action.choices or ())):
            yield parser.prog, str(option)
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from command_options(inner)


def test_the_script_is_there_and_no_mark_is_left(site: Path) -> None:
    page = re.sub(r"<[^>]+>", "", html.unescape((site / "admins.html").read_text(encoding="utf-8")))
    assert "#SBATCH --ntasks-per-node=8" in page
    assert "srun --export=ALL" in page
    assert str(ROOT) not in page
    for path in site.rglob("*.html"):
        assert "made:" not in re.sub(r"(?s)<script.*?</script>", "", path.read_text(encoding="utf-8")), path.name


def test_what_is_not_run_says_why() -> None:
    left_out = {item.text: item.reason for page in _PAGES for item in read_page(page) if isinstance(item, Command)}
    left_out = {text: reason for text, reason in left_out.items() if reason}
    for text, reason in left_out.items():
        print(f"not run: {text}: {reason}")
        for path in re.findall(r"tests/[\w/]+\.py", reason):
            assert (ROOT / path).is_file(), path
    assert left_out.keys() == _NOT_RUN


def test_no_command_hides_outside_of_console_blocks() -> None:
    for name, text in _TEXT.items():
        rest = re.sub(r"(?ms)^```console.*?^```$", "", text)
        assert not re.findall(r"(?m)^\s*(?:\$ |    (?:trainwright|make|pip) )", rest), name


def test_the_readmes_day_is_the_pages_day() -> None:
    """So that running the pages' commands runs the README's."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.partition("## A day with it")[2].partition("On Slurm,")[0]
    day = [line.split("  #")[0].strip() for line in re.findall(r"^    (trainwright .*)$", block, flags=re.MULTILINE)]
    assert len(day) > 10
    shown = iter(item.text for item in read_page(DOCS / "day.md") if isinstance(item, Command))
    missing = [command for command in day if command not in shown]  # `in` moves on: the order must be the same too
    assert missing == []


@pytest.mark.parametrize("name", _TEXT)
def test_what_is_named_exists(name: str) -> None:
    """Paths of the checkout, names in the tables of the folders' pages, and commands in the text."""
    text = _TEXT[name]
    for path in re.findall(rf"`((?:{_FOLDERS})/[\w./-]+\.(?:py|sbatch|yaml|json))`", text):
        assert (ROOT / path).is_file(), path
    for symbol, path in re.findall(r"^\| `([\w.]+)` \| `([\w/]+\.py)` \|", text, flags=re.MULTILINE):
        assert symbol in defined_in(ROOT / path), f"{symbol} is not in {path}"
    prose = re.sub(r"(?ms)^```.*?^```$", "", text)
    for command in re.findall(r"`trainwright ([a-z][^`]*)`", prose):
        assert unknown_word(command.split()) is None, command


def unknown_word(words: list[str]) -> str | None:
    """The first word of a command in the text that is no command or option."""
    parser = build_parser()
    while inner := next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None):
        if not words:
            return None
        if words[0] not in inner.choices:
            return words[0]
        parser, *words = inner.choices[words[0]], *words[1:]
    known = {option for action in parser._actions for option in action.option_strings}
    return next((word for word in words if word.startswith("-") and word not in known), None)


def defined_in(path: Path) -> set[str]:
    """Classes, functions, methods and constants of a module."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize(
    ("expected", "real", "same"),
    [
        ("loss ...", "loss 3.2\n", True),
        ("loss ...", "loss 3.2\nmore\n", False),
        ("...\nend", "end\n", True),
        ("...\nend", "a\nb\nend\n", True),
        ("a\n...", "a\n", True),
        ("a.c", "abc\n", False),
        ("a ... c", "a c\n", False),
        ("one\ntwo", "one\n", False),
    ],
)
def test_what_is_printed_is_compared(expected: str, real: str, same: bool) -> None:
    assert is_printed(expected, real) is same
