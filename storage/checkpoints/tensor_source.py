"""Where an engine's tensors come from: a checkpoint, or fresh random weights that no layout can change."""

import hashlib
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...config.model import ModelShape
from .rectangles import Rectangle, matrix_shape
from .tensor_names import tensor_shapes, writes_into_residual

WEIGHT = "weight"
Float32Array = npt.NDArray[np.float32]


class TensorSource(Protocol):
    """Gives rectangles of the model's tensors under their Hugging Face names."""

    def read_rectangle(self, slot: str, name: str, rectangle: Rectangle) -> Float32Array:
        """Float32 array [num_rows, num_cols] of tensor `name` in `slot` ("weight", "exp_avg", "exp_avg_sq")."""
        ...


class InitialWeights:
    """Random initial weights, the same for every layout: each block of rows has a generator of its own.

    Matrices are normal with the config's initializer_range; the two of a layer that write into the residual stream
    are scaled by 1/sqrt(2 * num_layers) as in GPT-2. Norms are 1, biases 0. Optimizer slots are 0.
    """

    _BLOCK_ROWS = 64

    def __init__(self, model: ModelShape, seed: int) -> None:
        self._model, self._seed = model, seed
        self._shapes = tensor_shapes(model)

    def read_rectangle(self, slot: str, name: str, rectangle: Rectangle) -> Float32Array:
        """See TensorSource."""
        shape = (rectangle.num_rows, rectangle.num_cols)
        if slot != WEIGHT or name.endswith("bias"):
            return np.zeros(shape, np.float32)
        if len(self._shapes[name]) == 1:
            return np.ones(shape, np.float32)
        first = rectangle.row // self._BLOCK_ROWS
        last = (rectangle.row + rectangle.num_rows - 1) // self._BLOCK_ROWS
        blocks = np.concatenate([self._block(name, number) for number in range(first, last + 1)])
        top = rectangle.row - first * self._BLOCK_ROWS
        return blocks[top : top + rectangle.num_rows, rectangle.col : rectangle.col + rectangle.num_cols]

    def _block(self, name: str, number: int) -> Float32Array:
        rows, cols = matrix_shape(self._shapes[name])
        rows = min(self._BLOCK_ROWS, rows - number * self._BLOCK_ROWS)
        digest = hashlib.sha256(f"{self._seed}/{name}/{number}".encode()).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
        std = self._model.init_std
        if writes_into_residual(name):
            std /= (2 * self._model.num_layers) ** 0.5
        return generator.standard_normal((rows, cols), np.float32) * np.float32(std)
