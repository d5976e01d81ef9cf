"""Expressions say of all documents at once what plain Python says of each; what is not allowed is refused by name."""

import ast
import math
import operator
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from trainwright.config.errors import UserError
from trainwright.storage.features.columns import DTYPES, Column
from trainwright.storage.features.evaluation import evaluate
from trainwright.storage.features.expression import parse
from trainwright.storage.features.values import TEXT, Value

KINDS = {"quality": "number", "stars": "integer", "language": "text", "licence": "text", "checked": "boolean"}
_VALUES: Mapping[str, tuple[Value | None, ...]] = {
    "quality": (None, 0.0, 0.5, 0.7, 1.0, -2.5, 1e300),
    "stars": (None, 0, 1, 3, (1 << 62) + 1, 1 << 62, -5),
    "language": (None, "en", "de", "", "zh", "ünï"),
    "licence": (None, "mit", "en", "", "cc-by"),
    "checked": (None, True, False),
}
_COMPARE: dict[type[ast.AST], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}
_ARITHMETIC: dict[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
Row = Mapping[str, Value | None]


def column_of(kind: str, values: Sequence[Value | None]) -> Column:
    """A column from values, None where there is none."""
    known = np.array([value is not None for value in values], bool)
    if kind != TEXT:
        return Column(kind, np.array([0 if value is None else value for value in values], DTYPES[kind]), known)
    texts = tuple(sorted({str(value) for value in values if value is not None}))
    places = {text: place for place, text in enumerate(texts)}
    codes = [0 if value is None else places[str(value)] for value in values]
    return Column(kind, np.array(codes, np.int64), known, texts)


def columns_of(rows: list[Row]) -> dict[str, Column]:
    return {name: column_of(kind, [row[name] for row in rows]) for name, kind in KINDS.items()}


def grow_truth(chance: random.Random, depth: int) -> str:
    """A random expression that is true or false."""
    ops = [word for word, _ in _COMPARE.values()]
    simple = [
        "checked",
        f"language {chance.choice(ops)} {chance.choice(('licence', repr('en'), repr('m')))}",
        f"quality {chance.choice(ops)} {chance.choice(('stars', '0.5', '-2.5'))}",
        f"stars {chance.choice(ops)} {chance.choice((3, 1 << 62, (1 << 62) + 1))}",
        f"licence {chance.choice(('in', 'not in'))} ('en', '', 'x')",
        f"stars in (1, -5, 0.0, {(1 << 62) + 1})",
        f"{chance.choice(list(KINDS))} {chance.choice(('is', 'is not'))} None",
    ]
    if not depth:
        return chance.choice(simple)
    deeper = [
        f"(not {grow_truth(chance, depth - 1)})",
        f"({grow_truth(chance, depth - 1)} {chance.choice(('and', 'or'))} {grow_truth(chance, depth - 1)})",
        f"(checked == ({grow_truth(chance, depth - 1)}))",
        f"({' '.join([grow_number(chance, depth - 1), chance.choice(ops), grow_number(chance, depth - 1)])})",
        f"({grow_number(chance, depth - 1)} < {grow_number(chance, depth - 1)} <= {grow_number(chance, depth - 1)})",
    ]
    return chance.choice(deeper)


def grow_number(chance: random.Random, depth: int) -> str:
    """A random expression that is a number."""
    if not depth:
        return chance.choice(("quality", "stars", "0.25", "3", "0"))
    left, right = grow_number(chance, depth - 1), grow_number(chance, depth - 1)
    return chance.choice(
        [
            f"({left} {chance.choice('+-*/')} {right})",
            f"(-{left})",
            f"{chance.choice(('min', 'max'))}({left}, {right})",
            f"({left} if {grow_truth(chance, depth - 1)} else {right})",
        ]
    )


def is_float(node: ast.expr) -> bool:
    """Whether a number is a float64, as all arithmetic is."""
    if isinstance(node, ast.IfExp):
        return is_float(node.body) or is_float(node.orelse)
    whole = isinstance(node, ast.Constant) and type(node.value) is int
    return not whole and not (isinstance(node, ast.Name) and node.id == "stars")


def plain(node: ast.expr, row: Row) -> Any:
    """The meaning on one document, with None for what is not known."""
    match node:
        case ast.Name():
            return row[node.id]
        case ast.Constant():
            return node.value
        case ast.UnaryOp(op=ast.Not()):
            inside = plain(node.operand, row)
            return None if inside is None else not inside
        case ast.UnaryOp():
            return _finite(lambda value: -value, plain(node.operand, row))
        case ast.BoolOp():
            values = [plain(each, row) for each in node.values]
            decides = isinstance(node.op, ast.Or)
            return decides if decides in values else None if None in values else not decides
        case ast.BinOp():
            return _finite(_ARITHMETIC[type(node.op)], plain(node.left, row), plain(node.right, row))
        case ast.Call(func=ast.Name(id=name)):
            return _finite(min if name == "min" else max, *(plain(each, row) for each in node.args))
        case ast.IfExp():
            test = plain(node.test, row)
            value = None if test is None else plain(node.body if test else node.orelse, row)
            return float(value) if value is not None and is_float(node) else value
        case ast.Compare():
            return _plain_comparison(node, row)
    raise AssertionError(node)


def _plain_comparison(node: ast.Compare, row: Row) -> bool | None:
    answers: list[bool | None] = []
    left = plain(node.left, row)
    for op, other in zip(node.ops, node.comparators, strict=True):
        if isinstance(op, ast.Is | ast.IsNot):
            return (left is None) == isinstance(op, ast.Is)
        if isinstance(other, ast.Tuple):
            found = any(_same_kind(operator.eq, left, ast.literal_eval(each)) for each in other.elts)
            return None if left is None else found == isinstance(op, ast.In)
        right = plain(other, row)
        answers.append(_same_kind(_COMPARE[type(op)][1], left, right))
        left = right
    return False if False in answers else None if None in answers else True


def _same_kind(compare: Callable[[Any, Any], Any], left: Any, right: Any) -> bool | None:
    if left is None or right is None:
        return None
    if float in (type(left), type(right)):
        left, right = float(left), float(right)
    return bool(compare(left, right))


def _finite(function: Callable[..., float], *values: float | None) -> float | None:
    if None in values:
        return None
    try:
        result = function(*(float(value) for value in values if value is not None))
    except (ZeroDivisionError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def test_all_documents_at_once_are_each_alone() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    rows: list[Row] = [{name: chance.choice(values) for name, values in _VALUES.items()} for _ in range(60)]
    columns, seen = columns_of(rows), set()
    for number in range(500):
        text = (grow_truth if number % 3 else grow_number)(chance, number % 4)
        expression = parse("--where", text, KINDS)
        column = evaluate(expression, columns)
        values, known = np.broadcast_to(column.values, 60), np.broadcast_to(column.known, 60)
        for place, row in enumerate(rows):
            expected = plain(expression.tree, row)
            found = values[place].item() if known[place] else None
            assert found == expected, (text, row)
            seen.add(str(expected)[:1])
    assert {"T", "F", "N", "3"} <= seen


def check_where(text: str) -> None:
    """As `select` does before it reads anything."""
    expression = parse("--where", text, KINDS)
    if evaluate(expression, columns_of([])).kind != "boolean":
        raise expression.error(expression.tree, "a number, neither true nor false", "quality > 0.5")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("qualty > 1", ("column 1, 'qualty'", "did you mean quality?")),
        ("absent == 1", ("no feature 'absent'", "the features are checked, language")),
        ("quality > 'a'", ("a number is compared with text",)),
        ("language == 3", ("text is compared with a number",)),
        ("checked < True", ("have no order",)),
        ("checked == 1", ("true or false is compared with a number",)),
        ("language in ('en', 3)", ("text is compared with a number",)),
        ("quality", ("a number, neither true nor false", "quality > 0.5")),
        ("quality and checked", ("'quality': a number, neither",)),
        ("not language", ("text, neither",)),
        ("language + 1 > 2", ("'language': text, not a number",)),
        ("min(language, 2) > 1", ("'language': text, not a number",)),
        ("('en' if checked else 2) == 2", ("either text or a number",)),
        ("quality >", ("invalid syntax",)),
        ("quality = 1", ("column", "quality = 1")),
        ("", ("invalid syntax",)),
        ("quality > 1\x00", ("null bytes",)),
        ("quality == None", ("`is` and None go together",)),
        ("quality is 1", ("`is` and None go together",)),
        ("quality in 1", ("`in` and lists",)),
        ("quality == (1, 2)", ("`in` and lists",)),
        ("quality in (stars,)", ("not a plain value",)),
        ("None", ("None is not a value",)),
        ("1 in (1,) in (2,)", ("cannot be chained",)),
        ("quality > 1j", ("1j",)),
        ("quality > 99999999999999999999", ("64 bits",)),
        ("quality > 1e999", ("inf is not a finite",)),
        ("language == b'en'", ("b'en'",)),
        ("quality ** 2 > 1", ("'quality ** 2': not allowed",)),
        ("quality // 2 > 1", ("not allowed",)),
        ("~stars > 1", ("not allowed",)),
        ("stars.real > 1", ("not allowed",)),
        ("language[0] == 'e'", ("not allowed",)),
        ("(lambda: 1)() > 1", ("not a function",)),
        ("__import__('os').system('false') == 0", ("not a function",)),
        ("abs(quality) > 1", ("not a function",)),
        ("min(quality) > 1", ("not a function",)),
        ("min(quality, 2, key=stars) > 1", ("not a function",)),
        ("min > 1", ("no feature 'min'",)),
        ("[quality for quality in (1,)] == 1", ("not allowed",)),
        ("(quality := 1) > 0", ("not allowed",)),
        ("f'{quality}' == '1'", ("not allowed",)),
        ("await quality", ("not allowed",)),
        ("quality > 1; 2", ("invalid syntax",)),
        ("(" * 300 + "quality" + ")" * 300 + " > 1", ("nested",)),
        ("not " * 990 + "checked", ("nested too deeply",)),
        ("quality > 1 or " * 500 + "checked", ("characters",)),
    ],
)
def test_what_is_not_allowed_is_refused_in_one_line(text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        check_where(text)
    message = str(caught.value)
    assert message.startswith("--where: ")
    for word in words:
        assert word in message
    assert len(message) < 400
