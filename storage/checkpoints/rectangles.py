"""Rectangles of matrices: how a flat range or a slice of a local matrix is cut, and where two rectangles meet.

A vector of n elements counts as a matrix of n rows and 1 column.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Rectangle:
    """Rows [row, row + num_rows) and columns [col, col + num_cols) of a matrix."""

    row: int
    num_rows: int
    col: int
    num_cols: int

    @property
    def size(self) -> int:
        return self.num_rows * self.num_cols

    def overlap(self, other: "Rectangle") -> "Rectangle | None":
        """The part that both cover, in the same coordinates, or None."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        last_row = min(self.row + self.num_rows, other.row + other.num_rows)
        last_col = min(self.col + self.num_cols, other.col + other.num_cols)
        if row >= last_row or col >= last_col:
            return None
        return Rectangle(row=row, num_rows=last_row - row, col=col, num_cols=last_col - col)


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) of a matrix or vector."""
    return (shape[0], shape[1]) if len(shape) == 2 else (shape[0], 1)


def rectangles_of_flat_range(rows: range, num_cols: int, flat: range) -> list[Rectangle]:
    """Cut rows `rows` of a row-major matrix to the elements of the flat range: at most three rectangles.

    A tail of the first row, whole rows, a head of the last row. Coordinates are those of the matrix.
    """
    start = max(flat.start, rows.start * num_cols)
    stop = min(flat.stop, rows.stop * num_cols)
    if start >= stop:
        return []
    (row, col), (last_row, last_col) = divmod(start, num_cols), divmod(stop, num_cols)
    if row == last_row:
        return [Rectangle(row=row, num_rows=1, col=col, num_cols=last_col - col)]
    parts = []
    if col:
        parts.append(Rectangle(row=row, num_rows=1, col=col, num_cols=num_cols - col))
        row += 1
    if last_row > row:
        parts.append(Rectangle(row=row, num_rows=last_row - row, col=0, num_cols=num_cols))
    if last_col:
        parts.append(Rectangle(row=last_row, num_rows=1, col=0, num_cols=last_col))
    return parts
