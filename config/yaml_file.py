"""YAML as people mean it: `1e-3` is a number, `12:00:00` is text, `no` is text, a key given twice is an error."""

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from .errors import UserError


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core scalars (PyYAML's own read `1e-3` as text and `12:00:00` as 43200)."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}  # type: ignore[misc]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (list, dict)):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+0123456789."),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), [*_first])
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^$"), [""])


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value)  # 007 is 7 here, not octal as in YAML 1.1


_Loader.add_constructor("tag:yaml.org,2002:int", _int)


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML; a UserError names `where` and the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{where}{line}", f"not valid YAML ({error.problem})", "mend that line") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(where, f"not valid YAML ({error})", "mend the file") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(str(path), "no such file", "give the path of a run file or profile") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise UserError(str(path), f"cannot be read ({error})", "give a readable YAML text file") from None
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise UserError(str(path), f"holds {type(data).__name__}, not fields", "write `field: value` lines")
    return data
