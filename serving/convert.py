"""Checkpoints of other tools as Hugging Face folders, to start from (`checkpoint.init_from`), export or serve."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config.errors import FoundBad, UserError
from ..config.model import ModelShape
from ..config.model_reader import read_model
from ..storage.checkpoints.hf_weights import HuggingFaceWeights
from ..storage.checkpoints.tensor_names import tensor_shapes
from ..storage.foreign.distributed import METADATA, DistributedCheckpoint
from ..storage.foreign.names import Makers, Tensors, makers_of
from ..storage.foreign.zero import LATEST, ZeroCheckpoint
from .model_files import served_config
from .safetensors_file import DType, ReadRows, Tensor
from .weight_files import DEFAULT_SHARD_BYTES, WeightFiles, new_folder, tensors_of

_NOT_WEIGHTS = (
    *("optim", "exp_avg", "rng_state", "scheduler", "dataloader", "train_state"),
    *("rotary", "freqs_cis", "_extra"),
)
"""Words in the names of tensors that a model does not need."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A finished conversion."""

    folder: Path
    source: str
    """What wrote the checkpoint, as far as its names tell."""
    num_tensors: int
    num_bytes: int
    weights_digest: str


def convert(source: Path, folder: Path, config: Path, dtype: DType) -> Converted:
    """Write the weights of a checkpoint of Megatron-LM, DeepSpeed or torch.distributed to the new folder `folder`.

    `config` is the model's config.json. Every tensor of the model must be there, and nothing else that looks like a
    weight. Raises UserError for a folder that is none of these, FoundBad naming a tensor or file.
    """
    model = read_model(config)
    checkpoint = _open(source)
    kind, makers = _makers(checkpoint, source, model)
    tensors = tensors_of(model, dtype)
    with new_folder(folder) as beside:
        weights = WeightFiles(beside, tensors, DEFAULT_SHARD_BYTES)
        digest = weights.write(_reader(makers, tensors, source), lambda _: None)
        record = served_config(config, dtype)
        (beside / "config.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        HuggingFaceWeights(beside, model)  # what was written is what the model needs
        return Converted(
            folder=folder,
            source=kind,
            num_tensors=len(tensors),
            num_bytes=weights.num_bytes,
            weights_digest=digest,
        )


def _open(source: Path) -> Tensors:
    if (source / METADATA).is_file():
        return DistributedCheckpoint(source)
    if (source / LATEST).is_file() or any(source.glob("*_optim_states.pt")):
        return ZeroCheckpoint(source)
    iteration = source / "latest_checkpointed_iteration.txt"
    if iteration.is_file():
        newest = source / f"iter_{int(iteration.read_text(encoding='utf-8')):07d}"
        if (newest / METADATA).is_file():
            return DistributedCheckpoint(newest)
        problem = f"{newest.name} is of Megatron-LM's old form, a file for each rank"
        raise UserError(str(source), problem, "save it with --ckpt-format torch_dist")
    problem = f"has neither {METADATA} (torch.distributed, Megatron-LM) nor *_optim_states.pt (DeepSpeed)"
    raise UserError(str(source), problem, "give the folder of one checkpoint")


def _makers(checkpoint: Tensors, source: Path, model: ModelShape) -> tuple[str, Makers]:
    """Raises FoundBad for a tensor that the model needs and the checkpoint lacks, or has and the model does not."""
    try:
        kind, makers, used = makers_of(checkpoint, model)
    except KeyError as error:
        remedy = "convert it to a Hugging Face folder with its own tools"
        raise FoundBad(str(source), str(error.args[0]), remedy) from None
    remedy = "give the config.json of the model that it holds"
    for name in tensor_shapes(model):
        if name not in makers:
            raise FoundBad(str(source), f"{name} is missing (its names are those of {kind})", remedy)
    for name in checkpoint.shapes():
        if name not in used and not any(word in name for word in _NOT_WEIGHTS):
            raise FoundBad(str(source), f"{name} is in it, and the model does not have that", remedy)
    return kind, makers


def _reader(makers: Makers, tensors: list[Tensor], source: Path) -> ReadRows:
    """Rows of tensors, each made once, and held against its shape."""
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    last: dict[str, NDArray[np.float32]] = {}

    def read(name: str, row: int, num_rows: int) -> NDArray[np.float32]:
        if name not in last:
            last.clear()
            values = makers[name]()
            if values.shape != shapes[name]:
                problem = f"{name} has shape {list(values.shape)}, and the model's is {list(shapes[name])}"
                raise FoundBad(str(source), problem, "give the config.json of the model that it holds")
            if not np.isfinite(values).all():
                raise FoundBad(str(source), f"{name} holds NaN or infinity", "convert an earlier step")
            last[name] = values
        return last[name][row : row + num_rows]

    return read
