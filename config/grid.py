"""A grid over fields of the run file: words such as `train.seed=1,2` make one point for each combination of values."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import UserError

_LONGEST_NAME = 64
_PAIRS = {"]": "[", "}": "{"}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One combination of values."""

    overrides: tuple[str, ...]
    """What load_run takes: one value for each field that was named."""
    values: dict[str, str]
    """Fields that differ between points, with their value here as it was written."""


def grid(words: Sequence[str]) -> list[Point]:
    """Every combination of the values in `key=value,value,...` words; the last field changes fastest.

    Commas inside brackets, braces and quotes do not part values, so that a list is a value: `[0.9,0.95],[0.9,0.99]`.
    Raises UserError naming the word that cannot be read, or if no field has several values.
    """
    axes: dict[str, list[str]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UserError(word, "not a field with values", "write section.field=value,value, such as train.seed=1,2")
        if key in axes:
            raise UserError(key, "is given twice", f"give all its values in one word, such as {key}=1,2")
        axes[key] = _values(key, text)
    swept = [key for key, values in axes.items() if len(values) > 1]
    if not swept:
        raise UserError("key=value,value", "no field has several values", "give some, or use `trainwright submit`")
    points = []
    for chosen in itertools.product(*axes.values()):
        pairs = dict(zip(axes, chosen, strict=True))
        overrides = tuple(f"{key}={value}" for key, value in pairs.items())
        points.append(Point(overrides=overrides, values={key: pairs[key] for key in swept}))
    return points


def name_points(names: Sequence[str], points: Sequence[Point]) -> list[str]:
    """A name for the run of each point: its run file's name and the values, such as `base-lr1e-3-seed2`.

    Where that is too long, or two would be the same, their number stands in place of the values.
    """
    by_value = [f"{name}{_label(point)}" for name, point in zip(names, points, strict=True)]
    if len(set(by_value)) == len(points) and all(len(name) <= _LONGEST_NAME for name in by_value):
        return by_value
    room = _LONGEST_NAME - len(f"-{len(points)}")
    return [f"{name[:room]}-{number}" for number, name in enumerate(names, start=1)]


def _label(point: Point) -> str:
    parts = [
        f"-{key.rpartition('.')[2]}{re.sub(r'[^A-Za-z0-9.-]+', '_', value).strip('_')}"
        for key, value in point.values.items()
        if key != "name"
    ]
    return "".join(parts)


def _values(key: str, text: str) -> list[str]:
    """The values of one word; one value if there is no comma that parts any."""
    values = _parted(key, text)
    if len(values) > 1 and not all(values):
        raise UserError(key, f"{text!r} has an empty value", "take a comma away, or put text with commas into quotes")
    for value in values:
        if values.count(value) > 1:
            raise UserError(key, f"{value} is given twice", "give each value once: two runs would be the same")
    return values


def _parted(key: str, text: str) -> list[str]:
    """`text` at its commas, but for those inside brackets, braces and quotes."""
    values, opened, quote = [""], list[str](), ""
    for letter in text:
        if letter == "," and not opened and not quote:
            values.append("")
            continue
        values[-1] += letter
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and (opened or values[-1].strip() == letter):  # an apostrophe inside a word is none
            quote = letter
        elif letter in "[{":
            opened.append(letter)
        elif letter in _PAIRS and (not opened or opened.pop() != _PAIRS[letter]):
            raise UserError(key, f"{text!r} has a {letter} that closes nothing", "mend the brackets")
    if opened or quote:
        raise UserError(key, f"{text!r} does not close its {quote or opened[-1]}", "mend the brackets or quotes")
    return [value.strip() for value in values]
