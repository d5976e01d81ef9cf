"""Expressions over features: a small part of Python's grammar, read into a tree that is checked, never run."""

import ast
import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from ...config.errors import UserError
from .values import kind_of

MAX_LENGTH = 4000
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn, ast.Is, ast.IsNot)
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div)
FUNCTIONS = ("min", "max")
_HELP = "use features, numbers, 'text', True, comparisons, and, or, not, in (...), is None, + - * /, if else, min, max"


@dataclass(frozen=True)
class Expression:
    """A checked expression."""

    option: str
    """The option that it came from, for messages."""
    text: str
    tree: ast.expr
    names: tuple[str, ...]
    """Features that it names, sorted."""

    def error(self, node: ast.expr, problem: str, remedy: str) -> UserError:
        """The error for a part of it."""
        return _error(self.option, self.text, node, problem, remedy)


def parse(option: str, text: str, kinds: Mapping[str, str]) -> Expression:
    """Read an expression over the features in `kinds`.

    Raises UserError naming the option and the column for what is no expression, not allowed, or an unknown feature.
    """
    text = text.strip()
    if len(text) > MAX_LENGTH:
        raise UserError(option, f"{len(text)} characters", f"give at most {MAX_LENGTH}")
    try:
        tree = ast.parse(text, mode="eval").body
        _check(option, text, tree)
    except (SyntaxError, MemoryError, RecursionError) as error:
        column = f"column {error.offset}: " if isinstance(error, SyntaxError) and error.offset else ""
        reason = error.msg if isinstance(error, SyntaxError) else "nested too deeply"
        raise UserError(option, f"{column}{reason} in {text[:80]!r}", _HELP) from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(option, f"{error} in {text[:80]!r}", _HELP) from None
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in functions]
    for node in used:
        if node.id not in kinds:
            raise _unknown(option, text, node, kinds)
    return Expression(option, text, tree, tuple(sorted({node.id for node in used})))


def _check(option: str, text: str, node: ast.expr) -> None:
    """Refuse everything that is not listed here."""
    inside = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    if isinstance(node, ast.Constant):
        _check_constant(option, text, node)
    elif isinstance(node, ast.Compare):
        _check_comparison(option, text, node)
        inside = [node.left, *(each for each in node.comparators if not isinstance(each, ast.Tuple | ast.List))]
        inside = [each for each in inside if not is_none(each)]
    elif isinstance(node, ast.Call):
        good = isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS
        if not good or node.keywords or len(node.args) < 2:
            raise _error(option, text, node, "not a function of two or more values that is known", _HELP)
        inside = node.args
    elif not (
        isinstance(node, ast.Name | ast.BoolOp | ast.IfExp)
        or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub))
        or (isinstance(node, ast.BinOp) and isinstance(node.op, _ARITHMETIC))
    ):
        raise _error(option, text, node, "not allowed here", _HELP)
    for child in inside:
        _check(option, text, child)


def _check_constant(option: str, text: str, node: ast.Constant) -> None:
    if node.value is None:
        raise _error(option, text, node, "None is not a value", "ask `is None` or `is not None`")
    try:
        kind_of(node.value)
    except ValueError as error:
        raise _error(option, text, node, str(error), _HELP) from None


def _check_comparison(option: str, text: str, node: ast.Compare) -> None:
    for op, right in zip(node.ops, node.comparators, strict=True):
        if not isinstance(op, _COMPARISONS):
            raise _error(option, text, node, "not allowed here", _HELP)
        listed = isinstance(right, ast.Tuple | ast.List)
        if listed != isinstance(op, ast.In | ast.NotIn):
            raise _error(option, text, right, "`in` and lists of values go together", "write NAME in ('a', 'b')")
        if is_none(right) != isinstance(op, ast.Is | ast.IsNot):
            raise _error(option, text, right, "`is` and None go together", "ask NAME is None, or compare with ==")
        if isinstance(right, ast.Tuple | ast.List):
            for each in right.elts:
                inner = each.operand if isinstance(each, ast.UnaryOp) and isinstance(each.op, ast.USub) else each
                if not isinstance(inner, ast.Constant):
                    raise _error(option, text, each, "not a plain value", "list numbers or texts")
                _check_constant(option, text, inner)
    if len(node.ops) > 1 and any(isinstance(op, ast.In | ast.NotIn | ast.Is | ast.IsNot) for op in node.ops):
        raise _error(option, text, node, "`in` and `is` cannot be chained", "join comparisons with `and`")


def is_none(node: ast.expr) -> bool:
    """Whether a part is the word None."""
    return isinstance(node, ast.Constant) and node.value is None


def _unknown(option: str, text: str, node: ast.Name, kinds: Mapping[str, str]) -> UserError:
    near = difflib.get_close_matches(node.id, kinds, n=1)
    named = f"the features are {', '.join(sorted(kinds)[:12])}"
    hint = f"did you mean {near[0]}?" if near else named
    return _error(option, text, node, f"no feature {node.id!r} in the features file", hint)


def _error(option: str, text: str, node: ast.expr, problem: str, remedy: str) -> UserError:
    part = ast.get_source_segment(text, node) or text
    return UserError(option, f"column {node.col_offset + 1}, {part[:60]!r}: {problem}", remedy)
