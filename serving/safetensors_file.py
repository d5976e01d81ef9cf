"""Safetensors files as a stream: the header first, then one tensor after another, never a whole model in memory."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from ..config.errors import UserError

DType = Literal["float32", "bfloat16", "float16"]
ReadRows = Callable[[str, int, int], NDArray[np.float32]]
"""(name, first row, number of rows) to float32 [rows, ...]; a vector's rows are its elements."""

_TAGS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_CHUNK_BYTES = 64 << 20  # of float32 values read at once
_HEADER_ALIGNMENT = 8  # so that tensors start aligned, as in Hugging Face's own files


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor of a file: its Hugging Face name, type on disk and shape."""

    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * _ITEM_BYTES[self.dtype]


def item_bytes(dtype: DType) -> int:
    """Bytes of one value on disk."""
    return _ITEM_BYTES[dtype]


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of bfloat16, rounded to nearest, ties to even; NaN stays (quiet) NaN. Same shape, uint16."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(values), quiet, rounded).astype("<u2")


def _encoded(values: NDArray[np.float32], tensor: Tensor) -> NDArray[Any]:
    """Values as they stand in the file. Raises UserError for a value that float16 would make infinite."""
    if tensor.dtype == "bfloat16":
        return to_bfloat16(values)
    if tensor.dtype == "float32":
        return np.ascontiguousarray(values, dtype="<f4")
    with np.errstate(over="ignore"):
        halves = values.astype("<f2")
    if np.isinf(halves).any() and np.isfinite(values).all():
        problem = f"float16 cannot hold {float(np.abs(values).max()):.4g}, which is in {tensor.name}"
        raise UserError("--dtype", problem, "export as bfloat16 or float32")
    return halves


def write_safetensors(
    path: Path, tensors: Sequence[Tensor], read_rows: ReadRows, on_bytes: Callable[[int], None] = lambda _: None
) -> dict[str, str]:
    """Write `tensors` in the order given and return the SHA-256 (hex) of each one's bytes, by name.

    The bytes depend on names, types, shapes and values alone. `on_bytes` hears of every piece written. Raises OSError
    as the disk does; the caller removes what is left.
    """
    digests = {}
    with path.open("wb") as file:
        file.write(_header(tensors))
        for tensor in tensors:
            digests[tensor.name] = _write_tensor(file, tensor, read_rows, on_bytes)
    return digests


def weights_digest(tensors: Iterable[Tensor], sha256: dict[str, str]) -> str:
    """SHA-256 (hex) over the sorted lines `name dtype shape sha256` of all tensors: one name for one set of weights."""
    total = hashlib.sha256()
    for tensor in sorted(tensors, key=lambda each: each.name):
        shape = "x".join(str(size) for size in tensor.shape)
        total.update(f"{tensor.name} {_TAGS[tensor.dtype]} {shape} {sha256[tensor.name]}\n".encode())
    return total.hexdigest()


def _header(tensors: Sequence[Tensor]) -> bytes:
    """Length (8 bytes, little endian) and JSON, padded with spaces."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.num_bytes
        entries[tensor.name] = {
            "dtype": _TAGS[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _write_tensor(file: BinaryIO, tensor: Tensor, read_rows: ReadRows, on_bytes: Callable[[int], None]) -> str:
    """Stream one tensor, some rows at a time."""
    digest = hashlib.sha256()
    num_rows, row_bytes = tensor.shape[0], 4 * prod(tensor.shape[1:])
    step = max(1, _CHUNK_BYTES // row_bytes)
    for row in range(0, num_rows, step):
        count = min(step, num_rows - row)
        values = read_rows(tensor.name, row, count)
        assert values.shape == (count, *tensor.shape[1:]), (tensor, row, values.shape)
        data = _encoded(values, tensor).tobytes()
        file.write(data)
        digest.update(data)
        on_bytes(len(data))
    return digest.hexdigest()
