"""Checkpoints of torch.distributed.checkpoint (DCP), which torchtitan and Megatron-LM (torch_dist) write."""

import io
from collections import OrderedDict
from math import prod
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config.errors import FoundBad
from .pickles import load_pickle, load_torch

METADATA = ".metadata"
_PACKAGES = ("torch.distributed.checkpoint.", "megatron.core.dist_checkpointing.")
"""Whose planners leave notes in the metadata that nobody needs."""
_REMEDY = "copy it again, or convert it with its own tools"


class DistributedCheckpoint:
    """A folder with a .metadata file: names, shapes, and values put together of the chunks that ranks wrote."""

    def __init__(self, folder: Path) -> None:
        """Raises FoundBad if the metadata is damaged, or names what no checkpoint needs."""
        self._folder = folder
        metadata = load_pickle(folder / METADATA, _allowed(), _PACKAGES)
        self._stored = {
            (index.fqn, tuple(index.offset)): info
            for index, info in metadata.storage_data.items()
            if index.offset is not None
        }
        self._tensors = {
            name: entry for name, entry in metadata.state_dict_metadata.items() if hasattr(entry, "chunks")
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor."""
        return {name: tuple(entry.size) for name, entry in self._tensors.items()}

    def read(self, name: str) -> NDArray[np.float32]:
        """A whole tensor as float32. Raises FoundBad naming it if a chunk is missing or damaged."""
        entry = self._tensors[name]
        out = np.empty(tuple(entry.size), np.float32)
        found = 0
        for chunk in entry.chunks:
            offset, sizes = tuple(chunk.offsets), tuple(chunk.sizes)
            place = tuple(slice(start, start + size) for start, size in zip(offset, sizes, strict=True))
            out[place] = self._chunk(name, offset).reshape(sizes)
            found += prod(sizes)
        if found != out.size:
            raise FoundBad(str(self._folder), f"{name} has {found} of {out.size} values", _REMEDY)
        return out

    def _chunk(self, name: str, offset: tuple[int, ...]) -> NDArray[np.float32]:
        info = self._stored.get((name, offset))
        if info is None:
            raise FoundBad(str(self._folder), f"{name} lacks the chunk at {list(offset)}", _REMEDY)
        path = self._folder / info.relative_path
        try:
            with path.open("rb") as file:
                file.seek(info.offset)
                data = file.read(info.length)
        except OSError as error:
            raise FoundBad(str(path), f"cannot be read ({error.strerror})", _REMEDY) from None
        values: NDArray[np.float32] = load_torch(io.BytesIO(data), f"{path}: {name}").detach().float().numpy()
        return values


def _allowed() -> dict[str, Any]:
    """Classes of the metadata, by their names in it."""
    import torch
    from torch.distributed.checkpoint import filesystem, metadata

    named: list[Any] = [
        metadata.Metadata,
        metadata.MetadataIndex,
        metadata.TensorStorageMetadata,
        metadata.BytesStorageMetadata,
        metadata.ChunkStorageMetadata,
        metadata.TensorProperties,
        metadata.StorageMeta,
        metadata._MEM_FORMAT_ENCODING,
        filesystem._StorageInfo,
        filesystem._StoragePrefix,
        torch.Size,
        OrderedDict,
    ]
    allowed = {f"{each.__module__}.{each.__qualname__}": each for each in named}
    allowed |= {f"pathlib.{name}": PosixPath for name in ("PosixPath", "Path", "PurePosixPath")}
    allowed |= {"pathlib._local.PosixPath": PosixPath}  # Python 3.13's
    allowed |= {"torch.serialization._get_layout": torch.serialization._get_layout}
    allowed |= {f"torch.{name}": getattr(torch, name) for name in ("float32", "float16", "bfloat16", "float64")}
    allowed |= {f"torch.{name}": getattr(torch, name) for name in ("int64", "int32", "uint8", "bool")}
    return allowed
