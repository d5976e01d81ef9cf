"""Checkpoints of DeepSpeed under ZeRO 1, 2 or 3: the float32 weights, put together of what its ranks wrote."""

import re
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config.errors import FoundBad
from .pickles import Stub, load_torch

LATEST = "latest"
_REMEDY = "copy it again, or convert it with its own zero_to_fp32.py"
_STUBS = (
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
)


class ZeroCheckpoint:
    """A folder with *_model_states.pt and *_optim_states.pt, or one above it with a file `latest`."""

    def __init__(self, folder: Path) -> None:
        """Raises FoundBad naming a file that is damaged or missing, what it lacks, or what is not supported."""
        if (folder / LATEST).is_file():
            folder = folder / (folder / LATEST).read_text(encoding="utf-8").strip()
        self._folder = folder
        models, optimizers = self._files("_model_states.pt"), self._files("_optim_states.pt")
        if any("_mp_rank_00" not in path.name and not path.name.startswith("mp_rank_00") for path in models):
            problem = "has tensor parallel ranks of DeepSpeed, whose weights are not put together here"
            raise FoundBad(str(folder), problem, "use DeepSpeed's ds_to_universal.py first")
        model = load_torch(models[0], str(models[0]), _STUBS)
        self._groups: list[dict[str, Any]] = _entry(model, "param_shapes", models[0])
        module = model.get("module") or {}
        self._buffers = {name: module[name] for name in model.get("buffer_names") or () if name in module}
        if model.get("frozen_param_shapes"):
            problem = "has frozen parameters, of which only the trained part is here"
            raise FoundBad(str(folder), problem, "merge them with its own tools first")
        states = [_entry(load_torch(path, str(path), _STUBS), "optimizer_state_dict", path) for path in optimizers]
        count = _entry(states[0], "partition_count", optimizers[0])
        expected = max(count) if isinstance(count, list) else count
        if expected != len(states):
            raise FoundBad(str(folder), f"has {len(states)} of {expected} files *_optim_states.pt", _REMEDY)
        self._stage = _number(_entry(states[0], "zero_stage", optimizers[0]))
        key = "fp32_flat_groups" if self._stage == 3 else "single_partition_of_fp32_groups"
        self._flat = [_entry(state, key, path) for state, path in zip(states, optimizers, strict=True)]
        paddings = states[0].get("param_alignment_paddings")
        self._paddings = paddings or [[0] * len(shapes) for shapes in self._groups]
        self._places = self._laid_out()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every parameter and buffer; those that share another's weights are left out."""
        buffers = {name: tuple(buffer.shape) for name, buffer in self._buffers.items()}
        return buffers | {name: tuple(shape) for shapes in self._groups for name, shape in shapes.items()}

    def read(self, name: str) -> NDArray[np.float32]:
        """A whole parameter or buffer as float32."""
        if name in self._buffers:
            values: NDArray[np.float32] = self._buffers[name].detach().float().numpy()
            return values
        group, start, shape = self._places[name]
        size = prod(shape)
        if self._stage == 3:
            each = -(-size // len(self._flat))  # every rank has as many values, the last one's filled up
            parts = [self._values(rank, group, start, each) for rank in range(len(self._flat))]
        else:
            parts = self._over_ranks(group, start, size)
        values = np.concatenate(parts)[:size]
        if len(values) != size:
            raise FoundBad(str(self._folder), f"{name} has {len(values)} of {size} values", _REMEDY)
        return values.reshape(shape)

    def _files(self, ending: str) -> list[Path]:
        found = list(self._folder.glob(f"*{ending}"))
        if not found:
            remedy = "give the folder of a step, or one with `latest`"
            raise FoundBad(str(self._folder), f"has no file *{ending}", remedy)
        return sorted(found, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])

    def _laid_out(self) -> dict[str, tuple[int, int, tuple[int, ...]]]:
        """Name -> number of its group (0 under ZeRO 3, which lays all groups out one after another), place, shape."""
        places, start = {}, 0
        for number, shapes in enumerate(self._groups):
            start = start if self._stage == 3 else 0
            for position, (name, shape) in enumerate(shapes.items()):
                places[name] = (0 if self._stage == 3 else number, start, tuple(shape))
                size = prod(shape)
                start += -(-size // len(self._flat)) if self._stage == 3 else size + self._paddings[number][position]
        return places

    def _over_ranks(self, group: int, start: int, size: int) -> list[NDArray[np.float32]]:
        """Values [start, start + size) of a group whose ranks' parts follow each other."""
        parts, before = [], 0
        for flat in self._flat:
            length = flat[group].numel()
            first, last = max(start, before), min(start + size, before + length)
            if first < last:
                parts.append(flat[group][first - before : last - before].detach().float().numpy())
            before += length
        return parts or [np.empty(0, np.float32)]

    def _values(self, rank: int, group: int, start: int, size: int) -> NDArray[np.float32]:
        """Values [start, start + size) of a rank, over its flat groups one after another."""
        parts, before = [], 0
        flat = self._flat[rank]
        for piece in flat if isinstance(flat, list) else [flat]:
            first, last = max(start, before), min(start + size, before + piece.numel())
            if first < last:
                parts.append(piece[first - before : last - before].detach().float().numpy())
            before += piece.numel()
        return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _entry(record: Any, name: str, path: Path) -> Any:
    """What a file's record holds under a name that every checkpoint under ZeRO has."""
    if not isinstance(record, dict) or name not in record:
        raise FoundBad(str(path), f"has no {name}, so it is none of DeepSpeed's under ZeRO 1 to 3", _REMEDY)
    return record[name]


def _number(stage: Any) -> int:
    """A stage of ZeRO, as a number or as DeepSpeed's enumeration of them."""
    return int(stage.args[0]) if isinstance(stage, Stub) else int(stage)
