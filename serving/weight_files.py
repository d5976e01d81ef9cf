"""A Hugging Face folder's weights: split over files, in a folder that appears whole or not at all."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..config.errors import UserError
from ..config.model import ModelShape
from ..storage.checkpoints.tensor_names import is_expert_bias, tensor_shapes
from ..storage.durable import sync
from .safetensors_file import DType, ReadRows, Tensor, weights_digest, write_safetensors

DEFAULT_SHARD_BYTES = 5_000_000_000


def tensors_of(model: ModelShape, dtype: DType) -> list[Tensor]:
    """A model's tensors as files have them, by name: all of one type, but for biases that choose experts."""
    return [
        Tensor(name=name, dtype="float32" if is_expert_bias(name) else dtype, shape=shape)
        for name, shape in sorted(tensor_shapes(model).items())
    ]


class WeightFiles:
    """The split of sorted tensors over files of at most `shard_bytes` (a larger tensor has a file of its own)."""

    def __init__(self, folder: Path, tensors: list[Tensor], shard_bytes: int) -> None:
        self.folder = folder
        self._shards: list[list[Tensor]] = [[]]
        size = 0
        for tensor in tensors:
            if self._shards[-1] and size + tensor.num_bytes > shard_bytes:
                self._shards.append([])
                size = 0
            self._shards[-1].append(tensor)
            size += tensor.num_bytes
        count = len(self._shards)
        self.names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
        if count == 1:
            self.names = ["model.safetensors"]
        self.num_bytes = sum(tensor.num_bytes for tensor in tensors)

    def write(self, read_rows: ReadRows, on_bytes: Callable[[int], None]) -> str:
        """Write every file, and the index if there is more than one; returns the weights digest."""
        digests: dict[str, str] = {}
        for name, shard in zip(self.names, self._shards, strict=True):
            digests |= write_safetensors(self.folder / name, shard, read_rows, on_bytes)
        if len(self.names) > 1:
            self._write_index()
        return weights_digest((tensor for shard in self._shards for tensor in shard), digests)

    def _write_index(self) -> None:
        where = {tensor.name: name for name, shard in zip(self.names, self._shards, strict=True) for tensor in shard}
        record = {"metadata": {"total_size": self.num_bytes}, "weight_map": where}
        text = json.dumps(record, indent=2, sort_keys=True) + "\n"
        (self.folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder`, renamed to it if all goes well and removed if not."""
    if folder.exists() or folder.is_symlink():
        raise UserError(str(folder), "exists already", "give a new folder, or remove that one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        for path in beside.iterdir():
            sync(path)
        beside.rename(folder)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(folder)  # a failed write does not say of which file
        raise
