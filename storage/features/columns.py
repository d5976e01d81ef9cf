"""One feature of many documents at a time: an array of values and which of them are known."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .values import BOOLEAN, INTEGER, NUMBER, TEXT, Value, kind_of

DTYPES = {INTEGER: np.dtype(np.int64), NUMBER: np.dtype(np.float64), TEXT: np.dtype(np.int64), BOOLEAN: np.dtype(bool)}
Known = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Column:
    """Values of one type, [documents] or a single one, [1]."""

    kind: str
    values: NDArray[Any]
    """int64, float64 or bool; for text, places in `texts`. Where a value is not known, anything."""
    known: Known
    texts: tuple[str, ...] = ()
    """Sorted, so that places compare as texts do."""

    def value(self, number: int) -> Value | None:
        """The value of one document, None if it is not known."""
        if not self.known[number]:
            return None
        found: Value = self.values[number].item()
        return self.texts[int(found)] if self.kind == TEXT else found


def constant(value: Value) -> Column:
    """One value for all documents."""
    kind = kind_of(value)
    texts = (str(value),) if kind == TEXT else ()
    return Column(kind, np.array([0 if kind == TEXT else value], DTYPES[kind]), np.ones(1, bool), texts)


def with_one_vocabulary(left: Column, right: Column) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of two text columns' values in one sorted list of both their texts."""
    places = {text: place for place, text in enumerate(sorted({*left.texts, *right.texts}))}

    def moved(column: Column) -> NDArray[np.int64]:
        table = np.array([places[text] for text in column.texts] or [0], np.int64)
        return table[column.values.astype(np.int64)]

    return moved(left), moved(right)
