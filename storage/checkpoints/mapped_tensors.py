"""Safetensors files of a folder, mapped: only what is read is loaded. Used for checkpoints and Hugging Face weights.

The safetensors package cannot give bfloat16 to NumPy, nor part of a row, so the bytes are taken here.
"""

import json
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: its safetensors dtype (F32, BF16, ...), shape, and the bytes [start, stop) of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class MappedTensors:
    """The files of one folder, each mapped at its first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: dict[str, mmap.mmap] = {}

    def entries(self, file: str) -> dict[str, Entry]:
        """Name -> entry of every tensor, from the file's header.

        Raises OSError, ValueError, KeyError, TypeError or AttributeError if it is no safetensors file.
        """
        mapped = self._map(file)
        begin = 8 + int.from_bytes(mapped[:8], "little")
        header: dict[str, Any] = json.loads(mapped[8:begin])
        return {
            name: Entry(item["dtype"], tuple(item["shape"]), *(begin + offset for offset in item["data_offsets"]))
            for name, item in header.items()
            if name != "__metadata__"
        }

    def size_bytes(self, file: str) -> int:
        """Size of a file."""
        return len(self._map(file))

    def array(self, file: str, dtype: "np.dtype[Any]", count: int, start: int) -> NDArray[Any]:
        """`count` elements from byte `start` on, [count], a view of the mapped file."""
        return np.frombuffer(self._map(file), dtype, count, start)

    def _map(self, file: str) -> mmap.mmap:
        if file not in self._maps:
            with (self._folder / file).open("rb") as handle:
                self._maps[file] = mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ)
        return self._maps[file]
