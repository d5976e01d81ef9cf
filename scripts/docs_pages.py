"""Parts of the documentation that are made from the code when the site is built: a hook that mkdocs.yml names.

A line `<!-- made: NAME -->` in a page is replaced: `fields` by the run file's sections, `commands` by every command's
--help, `profiles`, `may-change`, `variables`, `example NAME` by a preset, and `script EXAMPLE key=value...` by what
sbatch would get of an example.
"""

import argparse
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

BaseModel.model_config = ConfigDict(use_attribute_docstrings=True)  # before any section is made: see config/base.py

# ruff: noqa: E402
from trainwright.cli.main import build_parser
from trainwright.config.loading import load_run
from trainwright.config.profiles import BUILT_IN
from trainwright.config.run import RunConfig
from trainwright.launchers.another_attempt import MAY_CHANGE
from trainwright.launchers.environment import PASSED
from trainwright.launchers.plan import plan_run

_ROOT = Path(__file__).parents[1]
_MARK = re.compile(r"^<!-- made: (\S+) ?(.*) -->$", re.MULTILINE)
_HELP_COLUMNS = "100"
_WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}

Schema = Mapping[str, Any]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs calls this with each page's text. A mark that is unknown ends the build with a KeyError."""
    return _MARK.sub(lambda mark: _MAKERS[mark[1]](*mark[2].split()).rstrip("\n"), markdown)


def _fields() -> str:
    schema = RunConfig.model_json_schema()
    return "\n".join(_section(schema, schema["$defs"], ""))


def _section(section: Schema, defs: Schema, path: str) -> Iterator[str]:
    """Heading, table and the sections inside, depth first."""
    depth = path.count(".") + 2 if path else 2
    yield f"{'#' * min(depth + bool(path), 4)} {f'`{path}`' if path else 'Top level'}\n"
    yield f"{section['description']}\n"
    yield "| field | type | default | what |"
    yield "| --- | --- | --- | --- |"
    inside = []
    for name, field in section["properties"].items():
        dotted = f"{path}.{name}".lstrip(".")
        target = _inner(field)
        if target:
            inside.append((f"{dotted}.0" if "items" in field else dotted, defs[target]))
        yield _row(dotted, field, required=name in section.get("required", ()))
    yield ""
    for dotted, inner in inside:
        yield from _section(inner, defs, dotted)


def _row(dotted: str, field: Schema, *, required: bool) -> str:
    name = dotted.rpartition(".")[2]
    what = " ".join(field["description"].split())
    default = "required" if required else _default(field)
    return f'| <span id="{dotted}">`{name}`</span> | {_kind(field)} | {default} | {what} |'


def _inner(field: Schema) -> str:
    """Name of the section that a field holds, may hold, or holds a list of; empty if it is a plain value."""
    either = next((kind["$ref"] for kind in field.get("anyOf", ()) if "$ref" in kind), "")
    reference = field.get("$ref") or field.get("items", {}).get("$ref") or either
    return str(reference).rpartition("/")[2]


def _kind(field: Schema) -> str:
    """The type in words, with its bounds."""
    if "items" in field:
        return f"list of {'sections' if _inner(field) else _kind(field['items'])}"
    if _inner(field):
        return "section"
    if "anyOf" in field:
        return _kind(next(kind for kind in field["anyOf"] if kind.get("type") != "null"))
    if "prefixItems" in field:
        return ", ".join(_kind(kind) for kind in field["prefixItems"])
    if "const" in field or "enum" in field:
        return " or ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if "additionalProperties" in field:
        return f"names, each with a {_kind(field['additionalProperties'])}"
    words = [_WORDS[field["type"]]]
    words += [f"{sign} {_number(field[key])}" for key, sign in _BOUNDS.items() if key in field]
    if "pattern" in field:
        words.append(f"like `{field['pattern']}`")
    return " ".join(words)


def _number(value: float) -> str:
    big = isinstance(value, int) and value > 2**32 and value & (value - 1) == 0
    return f"2^{int(value).bit_length() - 1}" if big else str(value)


def _default(field: Schema) -> str:
    if _inner(field):
        return "its own"
    value = field.get("default", [] if field.get("type") == "array" else None)
    return "none" if value is None else f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _commands() -> str:
    os.environ["COLUMNS"] = _HELP_COLUMNS
    return "\n".join(_help(build_parser()))


def _help(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f"## `{parser.prog}`\n\n```text\n{parser.format_help().rstrip()}\n```\n"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _help(inner)


def _profiles() -> str:
    rows = ["| profile | fields |", "| --- | --- |"]
    for name, fields in BUILT_IN.items():
        given = ", ".join(f"`{key}: {value}`" for key, value in fields.items() if value is not None)
        rows.append(f"| `{name}` | {given} |")
    return "\n".join(rows)


def _script(example: str, *overrides: str) -> str:
    plan = plan_run(load_run(_ROOT / "examples" / f"{example}.yaml", overrides))
    assert plan.script is not None, f"{example} runs on this machine: there is no script"
    return f"```bash\n{plan.script}```"


def _example(name: str) -> str:
    return f"```yaml\n{(_ROOT / 'presets' / f'{name}.yaml').read_text(encoding='utf-8')}```"


_MAKERS: dict[str, Callable[..., str]] = {
    "fields": _fields,
    "commands": _commands,
    "profiles": _profiles,
    "may-change": lambda: ", ".join(f"`{field}`" for field in MAY_CHANGE) + ".",
    "variables": lambda: ", ".join(f"`{name}`" for name in PASSED) + ".",
    "example": _example,
    "script": _script,
}
