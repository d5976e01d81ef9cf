"""Random state and samples, drawn by name and place alone, on which a layout is compared with one rank."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from ...config.data import DataConfig
from ...config.model import ModelShape
from ...storage.checkpoints.rectangles import Rectangle, matrix_shape
from ...storage.checkpoints.slots import MOMENT, SQUARE
from ...storage.checkpoints.tensor_names import EMBEDDING, OUTPUT, tensor_shapes
from ...storage.checkpoints.tensor_source import WEIGHT, Float32Array
from ...storage.loading.samples import Batch

STEPS_DONE = 3
"""Updates that the drawn optimizer state is said to have behind it: a first one would forget the moments."""
_SEED = 20240229


def _generator(*words: object) -> np.random.Generator:
    digest = hashlib.sha256("/".join(map(str, (_SEED, *words))).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


class DrawnState:
    """A TensorSource with nothing in it that is zero, one, or alike: a bias or a norm left out shows."""

    def __init__(self, model: ModelShape) -> None:
        self.shapes = tensor_shapes(model)

    def read_rectangle(self, slot: str, name: str, rectangle: Rectangle) -> Float32Array:
        """See TensorSource."""
        rows = slice(rectangle.row, rectangle.row + rectangle.num_rows)
        return self.whole(slot, name)[rows, rectangle.col : rectangle.col + rectangle.num_cols]

    def whole(self, slot: str, name: str) -> Float32Array:
        """A whole tensor as a float32 matrix."""
        shape = self.shapes[name]
        drawn = _generator(slot, name).standard_normal(matrix_shape(shape), np.float32)
        if slot == MOMENT:
            return drawn * np.float32(0.003)
        if slot == SQUARE:
            return (drawn * np.float32(0.003)) ** 2 + np.float32(1e-5)
        assert slot == WEIGHT, slot
        if name in (EMBEDDING, OUTPUT):
            return drawn * np.float32(0.5)
        if len(shape) == 1:
            return drawn * np.float32(0.2) + np.float32(0 if name.endswith("bias") else 1)
        return drawn * np.float32(matrix_shape(shape)[1] ** -0.5)


class DrawnData:
    """Stands where TrainingData does: samples of random tokens, documents and padding, uneven on purpose.

    The first sample of every other micro batch is almost all padding, so that a mean over micro batches or ranks is not
    the mean over tokens; all others reach into the shares of all ranks that share a sample.
    """

    def __init__(self, data: DataConfig, vocab_size: int, micro_batch_size: int) -> None:
        self._length, self._masked = data.sequence_length + 1, data.prompt_mask
        self._vocab_size, self._micro = vocab_size, micro_batch_size

    def batch(self, position: int, count: int, *, starts: bool, out: NDArray[np.int64]) -> Batch:
        """See TrainingData.batch."""
        batch = Batch(out, self._masked)
        for row in range(count):
            self._fill(batch, row, position + row, starts)
        return batch

    def _fill(self, batch: Batch, row: int, position: int, starts: bool) -> None:
        generator, length = _generator("sample", position), self._length
        batch.tokens[row] = generator.integers(0, self._vocab_size, length)
        short = position % (2 * self._micro) == 0
        batch.filled[row] = length // 4 if short else generator.integers(length - 2, length + 1)
        if batch.trained is not None:
            batch.trained[row] = generator.random(length) < 0.8
        if starts:
            batch.starts[row] = generator.random(length) < 0.15
            batch.starts[row, 0] = True
