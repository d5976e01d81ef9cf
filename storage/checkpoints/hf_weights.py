"""Weights of a Hugging Face folder as a starting point: rectangles read out of its safetensors files, no torch."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config.errors import UserError
from ...config.model import ModelShape
from .mapped_tensors import Entry, MappedTensors
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
_PLACES, _PLACE_BYTES = 64, 1 << 16


class HuggingFaceWeights:
    """A TensorSource over a folder's weights: float32, float16 or bfloat16 in, float32 out; optimizer slots are 0."""

    def __init__(self, folder: Path, model: ModelShape) -> None:
        """Raises UserError naming the folder, file or tensor unless it holds exactly the model's tensors."""
        self._folder = folder
        self._mapped = MappedTensors(folder)
        self._tensors: dict[str, tuple[str, Entry]] = {}
        for file in self._files():
            self._tensors |= self._entries(file)
        self._check(model)

    def read_rectangle(self, slot: str, name: str, rectangle: Rectangle) -> Float32Array:
        """See TensorSource."""
        if slot != WEIGHT:
            return np.zeros((rectangle.num_rows, rectangle.num_cols), np.float32)
        file, stored = self._tensors[name]
        rows, cols = matrix_shape(stored.shape)
        data = self._mapped.array(file, _DTYPES[stored.dtype], rows * cols, stored.start)
        part: NDArray[Any] = data.reshape(rows, cols)[
            rectangle.row : rectangle.row + rectangle.num_rows, rectangle.col : rectangle.col + rectangle.num_cols
        ]
        if stored.dtype == "BF16":  # the upper half of a float32
            part = (part.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return np.ascontiguousarray(part, np.float32)

    def sampled_digest(self) -> str:
        """SHA-256 of what tells a copy from another model: each file's name, size and header, and 64 places in it."""
        digest = hashlib.sha256()
        for file in self._files():
            path = self._folder / file
            size = path.stat().st_size
            digest.update(f"{file} {size}\n".encode())
            with path.open("rb") as opened:
                head = int.from_bytes(opened.read(8), "little")
                digest.update(opened.read(head))
                for place in range(_PLACES):
                    opened.seek(place * size // _PLACES)
                    digest.update(opened.read(_PLACE_BYTES))
        return digest.hexdigest()

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

    def _entries(self, file: str) -> dict[str, tuple[str, Entry]]:
        """Name -> (file, entry) of every tensor of a file that is whole."""
        path = self._folder / file
        try:
            found = self._mapped.entries(file)
            size, end = self._mapped.size_bytes(file), max(entry.stop for entry in found.values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _error(path, f"is no safetensors file ({error})", "copy it again") from None
        if size < end:
            raise _error(path, f"is cut off: {size} of {end} bytes", "copy it again")
        return {name: (file, entry) for name, entry in found.items()}

    def _check(self, model: ModelShape) -> None:
        shapes = tensor_shapes(model)
        for name, shape in shapes.items():
            if name not in self._tensors:
                raise _error(self._folder, f"lacks {name}", "give weights of the model that `model` describes")
            _, stored = self._tensors[name]
            if stored.shape != shape:
                problem = f"{name} has shape {list(stored.shape)}, and the model's is {list(shape)}"
                raise _error(self._folder, problem, "give weights of the model that `model` describes")
            if stored.dtype not in _DTYPES:
                raise _error(self._folder, f"{name} is {stored.dtype}", f"give one of {', '.join(_DTYPES)}")
        for name in self._tensors.keys() - shapes.keys():
            copy_of_embedding = model.tied and name == OUTPUT
            if not copy_of_embedding and not name.endswith("rotary_emb.inv_freq") and not self._guesses(name, model):
                problem = f"holds {name}, which the model does not have"
                raise _error(self._folder, problem, "give weights of the model that `model` describes")

    def _guesses(self, name: str, model: ModelShape) -> bool:
        """Whether a tensor is of GLM's layers behind the last, which guess further tokens and are not trained here."""
        found = re.match(r"model\.layers\.(\d+)\.", name)
        if found is None or model.family != "glm4_moe" or int(found[1]) < model.num_layers:
            return False
        return f"{found[0]}eh_proj.weight" in self._tensors  # which no other layer has


def _error(path: Path, problem: str, remedy: str) -> UserError:
    return UserError(f"{_FIELD}: {path}", problem, remedy)
