"""What an expression says of each document, all documents at once; what is not known stays not known, as in SQL."""

import ast
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from .columns import Column, constant, with_one_vocabulary
from .expression import Expression, is_none
from .values import BOOLEAN, INTEGER, NUMBER, TEXT

_COMPARE: dict[type[ast.cmpop], Callable[..., NDArray[np.bool_]]] = {
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
_ARITHMETIC: dict[type[ast.operator], Callable[..., NDArray[np.float64]]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
}
_NUMBERS = (INTEGER, NUMBER)


def evaluate(expression: Expression, columns: Mapping[str, Column]) -> Column:
    """The expression's value for each document, [documents], or [1] if it names no feature.

    Whole numbers are compared with each other exactly; all other arithmetic is float64. A division by zero, and what
    is too large, is not known. Raises UserError naming the part whose types do not fit.
    """
    with np.errstate(all="ignore"):
        return _Evaluation(expression, columns).of(expression.tree)


class _Evaluation:
    def __init__(self, expression: Expression, columns: Mapping[str, Column]) -> None:
        self._expression, self._columns = expression, columns

    def of(self, node: ast.expr) -> Column:
        match node:
            case ast.Name():
                return self._columns[node.id]
            case ast.Constant():
                return constant(node.value)  # type: ignore[arg-type]
            case ast.BoolOp():
                return self._logic(node)
            case ast.UnaryOp(op=ast.Not()):
                return _negated(self._truth(node.operand))
            case ast.UnaryOp():
                inside = self._number(node.operand)
                return _number(-inside.values, inside.known)
            case ast.BinOp():
                left, right = self._number(node.left), self._number(node.right)
                return _number(_ARITHMETIC[type(node.op)](left.values, right.values), left.known & right.known)
            case ast.Compare():
                return self._comparison(node)
            case ast.IfExp():
                return self._choice(node)
            case ast.Call():
                return self._extreme(node)
        raise AssertionError(ast.dump(node))  # parse() lets nothing else through

    def _logic(self, node: ast.BoolOp) -> Column:
        """`or` is known to be true where one side is, `and` known to be false where one is."""
        result = self._truth(node.values[0])
        for each in node.values[1:]:
            other = self._truth(each)
            if isinstance(node.op, ast.And):
                result = _both(result, other)
            else:
                result = _negated(_both(_negated(result), _negated(other)))
        return result

    def _comparison(self, node: ast.Compare) -> Column:
        left, result = self.of(node.left), None
        for op, right in zip(node.ops, node.comparators, strict=True):
            if is_none(right):
                values = ~left.known if isinstance(op, ast.Is) else left.known
                return Column(BOOLEAN, values, np.ones_like(values))
            if isinstance(right, ast.Tuple | ast.List):
                return self._listed(node, left, right)
            other = self.of(right)
            one = Column(BOOLEAN, self._pair(node, type(op), left, other), left.known & other.known)
            result, left = one if result is None else _both(result, one), other
        assert result is not None
        return result

    def _listed(self, node: ast.Compare, column: Column, right: ast.Tuple | ast.List) -> Column:
        found = np.zeros(column.values.shape, bool)
        for each in right.elts:
            found = found | self._pair(node, ast.Eq, column, self.of(each))
        return Column(BOOLEAN, found if isinstance(node.ops[0], ast.In) else ~found, column.known)

    def _pair(self, node: ast.expr, op: type[ast.cmpop], left: Column, right: Column) -> NDArray[np.bool_]:
        compare = _COMPARE[op]
        if left.kind in _NUMBERS and right.kind in _NUMBERS:
            return compare(left.values, right.values)
        if left.kind != right.kind:
            problem = f"{_A[left.kind]} is compared with {_A[right.kind]}"
            raise self._expression.error(node, problem, "compare values of one type")
        if left.kind == TEXT:
            return compare(*with_one_vocabulary(left, right))
        if op not in (ast.Eq, ast.NotEq):
            raise self._expression.error(node, "true and false have no order", "compare them with == or !=")
        return compare(left.values, right.values)

    def _choice(self, node: ast.IfExp) -> Column:
        test, yes, no = self._truth(node.test), self.of(node.body), self.of(node.orelse)
        numbers = yes.kind in _NUMBERS and no.kind in _NUMBERS
        if yes.kind != no.kind and not numbers:
            raise self._expression.error(node, f"either {_A[yes.kind]} or {_A[no.kind]}", "give values of one type")
        known = test.known & np.where(test.values, yes.known, no.known)
        if yes.kind == TEXT:
            texts = tuple(sorted({*yes.texts, *no.texts}))
            return Column(TEXT, np.where(test.values, *with_one_vocabulary(yes, no)), known, texts)
        return Column(yes.kind if yes.kind == no.kind else NUMBER, np.where(test.values, yes.values, no.values), known)

    def _extreme(self, node: ast.Call) -> Column:
        assert isinstance(node.func, ast.Name)
        pick = np.minimum if node.func.id == "min" else np.maximum
        result = self._number(node.args[0])
        for each in node.args[1:]:
            other = self._number(each)
            result = _number(pick(result.values, other.values), result.known & other.known)
        return result

    def _number(self, node: ast.expr) -> Column:
        column = self.of(node)
        if column.kind not in _NUMBERS:
            raise self._expression.error(node, f"{_A[column.kind]}, not a number", "compare it, or leave it out")
        return Column(NUMBER, column.values.astype(np.float64), column.known)

    def _truth(self, node: ast.expr) -> Column:
        column = self.of(node)
        if column.kind != BOOLEAN:
            remedy = "compare it: quality > 0.5, language == 'en'"
            raise self._expression.error(node, f"{_A[column.kind]}, neither true nor false", remedy)
        return column


def _negated(column: Column) -> Column:
    return Column(BOOLEAN, ~column.values, column.known)


def _both(left: Column, right: Column) -> Column:
    """`and`: known where both are, and where one is known to be false."""
    false = (left.known & ~left.values) | (right.known & ~right.values)
    return Column(BOOLEAN, ~false, false | (left.known & right.known))


def _number(values: NDArray[np.float64], known: NDArray[np.bool_]) -> Column:
    """A column of numbers; what is infinite or no number is not known."""
    finite = np.isfinite(values)
    return Column(NUMBER, np.where(finite, values, 0.0), known & finite)


_A: dict[str, str] = {INTEGER: "a number", NUMBER: "a number", TEXT: "text", BOOLEAN: "true or false"}
