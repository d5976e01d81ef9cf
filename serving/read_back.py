"""An export read again as anyone else would, and held against the checkpoint: every tensor, every value. No torch."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..config.errors import FoundBad, UserError
from ..config.model import ModelShape
from ..config.model_reader import read_model
from ..storage.checkpoints.hf_weights import HuggingFaceWeights
from ..storage.checkpoints.rectangles import Rectangle, matrix_shape
from ..storage.checkpoints.tensor_source import WEIGHT, Float32Array, TensorSource
from .safetensors_file import DType, item_bytes
from .weight_files import tensors_of

# Half a unit in the last place over the value (IEEE 754 binary16; bfloat16 has 8 bits of precision), and the largest
# error below the smallest normal number.
_RELATIVE: dict[DType, float] = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_ABSOLUTE: dict[DType, float] = {"float32": 0.0, "float16": 2.0**-25, "bfloat16": 2.0**-134}
_BLOCK_VALUES = 16 << 20
_REMEDY = "export again; if it fails again, report it with this line"


def read_back(
    source: TensorSource, model: ModelShape, folder: Path, dtype: DType, on_bytes: Callable[[int], None]
) -> None:
    """Compare the weights in `folder` with those of `source`, some rows at a time; `on_bytes` hears of every piece.

    Raises FoundBad naming the first tensor that is missing, too many, of another shape, or further from the
    checkpoint's values than rounding to `dtype` goes.
    """
    for field, expected in asdict(model).items():
        found = asdict(read_model(folder))[field]
        if found != expected:
            problem = f"says {field} {found}, and the run's model has {expected}"
            raise FoundBad(str(folder / "config.json"), problem, _REMEDY)
    try:
        written = HuggingFaceWeights(folder, model)
    except UserError as error:
        raise FoundBad(str(folder), f"what was written {error.problem}", _REMEDY) from None
    for tensor in tensors_of(model, dtype):
        name, (rows, cols) = tensor.name, matrix_shape(tensor.shape)
        step = max(1, _BLOCK_VALUES // cols)
        for row in range(0, rows, step):
            place = Rectangle(row=row, num_rows=min(step, rows - row), col=0, num_cols=cols)
            kept = source.read_rectangle(WEIGHT, name, place)
            if not _equal(written.read_rectangle(WEIGHT, name, place), kept, tensor.dtype):
                problem = f"{name} was written with other values than the checkpoint has"
                raise FoundBad(str(folder), problem, _REMEDY)
            on_bytes(place.size * item_bytes(tensor.dtype))


def _equal(written: Float32Array, kept: Float32Array, dtype: DType) -> bool:
    """Whether each value is within rounding of the other; float32 is not rounded."""
    if not _RELATIVE[dtype]:
        return bool(np.array_equal(written.view(np.uint32), kept.view(np.uint32)))
    bound = np.maximum(np.abs(kept) * np.float32(_RELATIVE[dtype]), np.float32(_ABSOLUTE[dtype]))
    return bool((np.abs(written - kept) <= bound).all())
