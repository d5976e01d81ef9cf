"""YAML as people mean it."""

from pathlib import Path

import pytest

from trainwright.config.errors import UserError
from trainwright.config.yaml_file import parse_yaml, read_mapping


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        (".5", 0.5),
        ("1E5", 100000.0),
        ("-3", -3),
        ("007", 7),
        ("12:00:00", "12:00:00"),
        ("1:30", "1:30"),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("'1e-3'", "1e-3"),
        ("2024-01-01", "2024-01-01"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("[1, 2e0]", [1, 2.0]),
    ],
)
def test_scalars_are_what_they_look_like(text: str, value: object) -> None:
    parsed = parse_yaml(text, "here")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["a: 1\na: 2", "a: {b: 1, b: 2}", "[{b: 1, b: 2}]"])
def test_a_key_given_twice_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match=r"here, line \d: not valid YAML \([ab] is given twice\)"):
        parse_yaml(text, "here")


@pytest.mark.parametrize(
    "text", ["a: [", "a: b: c", "? [a]: b\n: c", "!!python/object:os.system x", "\tx: 1", "[1, 2]: x"]
)
def test_broken_yaml_names_the_place(text: str) -> None:
    with pytest.raises(UserError, match=r"^here"):
        parse_yaml(text, "here")


def test_read_mapping_refuses_what_is_no_mapping(tmp_path: Path) -> None:
    for name, content in {"list.yaml": b"- 1", "empty.yaml": b"", "binary.yaml": b"\xff\xfe\x00"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            read_mapping(tmp_path / name)
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(UserError, match=str(path)):
            read_mapping(path)
