"""Adapters of low rank: their tensors, where they start, and the weights that they and their base make together.

A run with `train.lora` has checkpoints of its adapters alone. They are named as peft names them in its files, but for
its prefix. No torch.
"""

import hashlib
from pathlib import Path

import numpy as np

from ...config.errors import UserError
from ...config.lora import LoraConfig
from ...config.model import ModelShape
from ...config.run import RunConfig
from .hf_weights import HuggingFaceWeights
from .rectangles import Rectangle
from .tensor_names import tensor_shapes
from .tensor_source import WEIGHT, Float32Array, TensorSource

_A, _B = ".lora_A.weight", ".lora_B.weight"
BASE = "lora_base"
"""Key of the manifest's scalars: digest of the weights that the adapters were trained on."""


def is_adapter(name: str) -> bool:
    """Whether a tensor is one of an adapter's two."""
    return name.endswith((_A, _B))


def adapter_shapes(lora: LoraConfig, model: ModelShape) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every adapter's A [rank, columns] and B [rows, rank]."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in tensor_shapes(model).items():
        matrix = name.removesuffix(".weight")
        if matrix != name and matrix.rpartition(".")[2] in lora.targets:
            shapes[matrix + _A], shapes[matrix + _B] = (lora.rank, shape[1]), (shape[0], lora.rank)
    return shapes


def trained_shapes(run: RunConfig, model: ModelShape) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor that a run trains: what its checkpoints hold."""
    lora = run.train.lora
    return tensor_shapes(model) if lora is None else adapter_shapes(lora, model)


class FirstAdapters:
    """A TensorSource: A is uniform within 1 / sqrt(columns), as torch's linear layers are, and B is 0."""

    def __init__(self, lora: LoraConfig, model: ModelShape, seed: int) -> None:
        self._shapes, self._seed = adapter_shapes(lora, model), seed

    def read_rectangle(self, slot: str, name: str, rectangle: Rectangle) -> Float32Array:
        """See TensorSource."""
        rows = slice(rectangle.row, rectangle.row + rectangle.num_rows)
        shape = self._shapes[name]
        whole = np.zeros(shape, np.float32)
        if slot == WEIGHT and name.endswith(_A):
            digest = hashlib.sha256(f"{self._seed}/{name}".encode()).digest()
            generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
            whole = (generator.random(shape, np.float32) * 2 - 1) * np.float32(shape[1] ** -0.5)
        return whole[rows, rectangle.col : rectangle.col + rectangle.num_cols]


class WithBase:
    """A TensorSource of adapters from one place, and of all other weights from their base."""

    def __init__(self, base: TensorSource, adapters: TensorSource) -> None:
        self._base, self._adapters = base, adapters

    def read_rectangle(self, slot: str, name: str, rectangle: Rectangle) -> Float32Array:
        """See TensorSource."""
        return (self._adapters if is_adapter(name) else self._base).read_rectangle(slot, name, rectangle)


class Merged:
    """A TensorSource of the model's weights with the adapters' products added, in float32."""

    def __init__(self, base: TensorSource, adapters: TensorSource, lora: LoraConfig, model: ModelShape) -> None:
        self._base, self._adapters = base, adapters
        self._scale, self._shapes = np.float32(lora.alpha / lora.rank), adapter_shapes(lora, model)

    def read_rectangle(self, slot: str, name: str, rectangle: Rectangle) -> Float32Array:
        """See TensorSource; weights alone."""
        assert slot == WEIGHT
        weight = self._base.read_rectangle(WEIGHT, name, rectangle)
        matrix = name.removesuffix(".weight")
        shape = self._shapes.get(matrix + _A)
        if shape is None:
            return weight
        rank = shape[0]
        left = Rectangle(row=rectangle.row, num_rows=rectangle.num_rows, col=0, num_cols=rank)
        right = Rectangle(row=0, num_rows=rank, col=rectangle.col, num_cols=rectangle.num_cols)
        b = self._adapters.read_rectangle(WEIGHT, matrix + _B, left)
        a = self._adapters.read_rectangle(WEIGHT, matrix + _A, right)
        merged: Float32Array = weight + self._scale * (b @ a)
        return merged


def base_of(run: RunConfig, model: ModelShape) -> HuggingFaceWeights:
    """The weights that a run's adapters stand beside. Raises UserError naming what is wrong with the folder."""
    assert run.checkpoint.init_from is not None  # engine_rules asks for it
    return HuggingFaceWeights(Path(run.checkpoint.init_from), model)


def require_same_base(run: RunConfig, model: ModelShape, digest: str | None) -> None:
    """Raises UserError if the base is not what the checkpoint's adapters were trained on."""
    found = base_of(run, model).sampled_digest()
    if digest != found:
        problem = f"{run.checkpoint.init_from} has other weights than the adapters were trained on"
        raise UserError("checkpoint.init_from", problem, "put those back: adapters mean nothing without them")
