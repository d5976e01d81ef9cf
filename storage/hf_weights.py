"""Weights of a Hugging Face folder as a starting point: rectangles read out of its safetensors files, no torch."""

import json
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.errors import UserError
from ..config.model import ModelShape
from .rectangles import Rectangle, matrix_shape
from .tensor_names import OUTPUT, tensor_shapes
from .tensor_source import WEIGHT, Float32Array

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(np.uint16),
}
_FIELD = "checkpoint.init_from"


@dataclass(frozen=True)
class _Stored:
    """Where a tensor's bytes begin, and what they are."""

    file: str
    offset: int
    dtype: str
    shape: tuple[int, ...]


class HuggingFaceWeights:
    """A TensorSource over a folder's weights: float32, float16 or bfloat16 in, float32 out; optimizer slots are 0."""

    def __init__(self, folder: Path, model: ModelShape) -> None:
        """Raises UserError naming the folder, file or tensor unless it holds exactly the model's tensors."""
        self._folder = folder
        self._maps: dict[str, mmap.mmap] = {}
        self._tensors: dict[str, _Stored] = {}
        for file in self._files():
            self._tensors |= self._header(file)
        self._check(model)

    def read_rectangle(self, slot: str, name: str, rectangle: Rectangle) -> Float32Array:
        """See TensorSource."""
        if slot != WEIGHT:
            return np.zeros((rectangle.num_rows, rectangle.num_cols), np.float32)
        stored = self._tensors[name]
        rows, cols = matrix_shape(stored.shape)
        data = np.frombuffer(self._map(stored.file), _DTYPES[stored.dtype], rows * cols, stored.offset)
        part: NDArray[Any] = data.reshape(rows, cols)[
            rectangle.row : rectangle.row + rectangle.num_rows, rectangle.col : rectangle.col + rectangle.num_cols
        ]
        if stored.dtype == "BF16":  # the upper half of a float32
            part = (part.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return np.ascontiguousarray(part, np.float32)

    def _files(self) -> list[str]:
        index = self._folder / _INDEX
        if not index.is_file():
            if (self._folder / _SINGLE).is_file():
                return [_SINGLE]
            raise _error(
                self._folder, f"holds neither {_SINGLE} nor {_INDEX}", "give a folder with safetensors weights"
            )
        try:
            return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _error(index, f"cannot be read ({error})", "copy it again") from None

    def _header(self, file: str) -> dict[str, _Stored]:
        path = self._folder / file
        try:
            mapped = self._map(file)
            size = int.from_bytes(mapped[:8], "little")
            entries: dict[str, Any] = json.loads(mapped[8 : 8 + size])
            entries.pop("__metadata__", None)
            end = 8 + size + max(entry["data_offsets"][1] for entry in entries.values())
            found = {
                name: _Stored(file, 8 + size + entry["data_offsets"][0], entry["dtype"], tuple(entry["shape"]))
                for name, entry in entries.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _error(path, f"is no safetensors file ({error})", "copy it again") from None
        if len(mapped) < end:
            raise _error(path, f"is cut off: {len(mapped)} of {end} bytes", "copy it again")
        return found

    def _check(self, model: ModelShape) -> None:
        shapes = tensor_shapes(model)
        for name, shape in shapes.items():
            stored = self._tensors.get(name)
            if stored is None:
                raise _error(self._folder, f"lacks {name}", "give weights of the model that `model` describes")
            if stored.shape != shape:
                problem = f"{name} has shape {list(stored.shape)}, and the model's is {list(shape)}"
                raise _error(self._folder, problem, "give weights of the model that `model` describes")
            if stored.dtype not in _DTYPES:
                raise _error(self._folder, f"{name} is {stored.dtype}", f"give one of {', '.join(_DTYPES)}")
        for name in self._tensors.keys() - shapes.keys():
            copy_of_embedding = model.tied and name == OUTPUT
            if not copy_of_embedding and not name.endswith("rotary_emb.inv_freq"):
                problem = f"holds {name}, which the model does not have"
                raise _error(self._folder, problem, "give weights of the model that `model` describes")

    def _map(self, file: str) -> mmap.mmap:
        if file not in self._maps:
            with (self._folder / file).open("rb") as handle:
                self._maps[file] = mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ)
        return self._maps[file]


def _error(path: Path, problem: str, remedy: str) -> UserError:
    return UserError(f"{_FIELD}: {path}", problem, remedy)
