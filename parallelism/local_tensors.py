"""Between an engine's local parameter, or a flat range of it, and rectangles of Hugging Face tensors."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ..storage.checkpoints.checkpoint_writer import OwnedRectangle
from ..storage.checkpoints.rectangles import Rectangle, rectangles_of_flat_range
from ..storage.checkpoints.tensor_names import Piece
from ..storage.checkpoints.tensor_source import Float32Array, TensorSource


def matrix_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) of a local parameter: vectors are one column, stacked matrices lie below each other."""
    return (shape[0], 1) if len(shape) == 1 else (int(np.prod(shape[:-1])), shape[-1])


def assemble(source: TensorSource, slot: str, pieces: Sequence[Piece], shape: tuple[int, ...]) -> Float32Array:
    """A whole local parameter as float32 [rows, cols], rows in no piece 0."""
    rows, cols = matrix_of(shape)
    out = np.zeros((rows, cols), np.float32)
    for piece in pieces:
        place = Rectangle(row=piece.row, num_rows=piece.num_rows, col=piece.col, num_cols=cols)
        out[piece.local_row : piece.local_row + piece.num_rows] = source.read_rectangle(slot, piece.name, place)
    return out


def cut(
    slot: str, values: Float32Array, flat: range, shape: tuple[int, ...], pieces: Sequence[Piece]
) -> Iterator[OwnedRectangle]:
    """The rectangles of Hugging Face tensors in a flat range of a local parameter; values float32 [len(flat)]."""
    _, cols = matrix_of(shape)
    for piece in pieces:
        rows = range(piece.local_row, piece.local_row + piece.num_rows)
        for part in rectangles_of_flat_range(rows, cols, flat):
            start = part.row * cols + part.col - flat.start
            place = Rectangle(
                row=piece.row + part.row - piece.local_row,
                num_rows=part.num_rows,
                col=piece.col + part.col,
                num_cols=part.num_cols,
            )
            block = values[start : start + part.size].reshape(part.num_rows, part.num_cols)
            yield OwnedRectangle(slot, piece.name, place, block)


def on_host(tensor: torch.Tensor) -> Float32Array:
    """A flat float32 copy in this process's memory."""
    copied: Float32Array = tensor.detach().to("cpu", torch.float32, copy=True).reshape(-1).numpy()
    return copied
