"""From a checkpoint to a Hugging Face folder: read tensor by tensor, no model built, no torch."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config.errors import FoundBad, UserError
from ..config.loading import load_frozen
from ..config.model import ModelShape
from ..config.model_reader import read_model
from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..storage.checkpoints.adapters import BASE, Merged, base_of, require_same_base, trained_shapes
from ..storage.checkpoints.checkpoint import Checkpoint, file_crc32c
from ..storage.checkpoints.manifest import FILE_NAME as MANIFEST
from ..storage.checkpoints.rectangles import Rectangle, matrix_shape
from ..storage.checkpoints.tensor_names import tensor_shapes
from ..storage.checkpoints.tensor_source import WEIGHT, TensorSource
from .adapter_files import write_adapter
from .engine_check import check_by_engine
from .model_files import write_model_files
from .read_back import read_back
from .safetensors_file import DType, ReadRows, Tensor
from .weight_files import DEFAULT_SHARD_BYTES, WeightFiles, new_folder, tensors_of

RECORD = "trainwright.json"  # beside the weights: where they come from and their digest
DTYPES: dict[str, DType] = {"bf16": "bfloat16", "fp32": "float32"}


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How weights are written: type (the run's own precision if None) and the largest file in bytes."""

    dtype: DType | None = None
    shard_bytes: int = DEFAULT_SHARD_BYTES
    adapter: bool = False
    """Only the adapters of a run with train.lora, in peft's files, and not the whole model with them merged."""
    check: bool = False
    """Whether transformers must compute on the export what the engine computes on the checkpoint (loads both)."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A finished export; `weights_digest` names the weights, whoever wrote them."""

    folder: Path
    run: str
    step: int
    tokens: int
    dtype: DType
    num_bytes: int
    num_files: int
    weights_digest: str
    logits_max_rel: float | None = None
    """Of transformers' logits from the engine's, over the largest; None if it was not checked."""


def run_of(checkpoint: Checkpoint) -> RunDir:
    """The run directory that a checkpoint lies in (its model config and tokenizer are there)."""
    run = RunDir(checkpoint.folder.parent.parent)
    if not run.model_config.is_file():
        problem = "is not in a run directory, so its model config and tokenizer are unknown"
        raise UserError(str(checkpoint.folder), problem, "give a checkpoint in RUN/checkpoints")
    return run


def checkpoint_id(checkpoint: Checkpoint) -> str:
    """Names the checkpoint's bytes: its manifest, which holds the checksum of every file, in short."""
    return f"{file_crc32c(checkpoint.folder / MANIFEST):08x}"


def export_checkpoint(
    checkpoint: Checkpoint,
    folder: Path,
    options: ExportOptions,
    on_bytes: Callable[[int, int], None] = lambda _done, _total: None,
) -> Exported:
    """Write `checkpoint`'s weights, config and tokenizer to the new folder `folder`, built beside it and renamed.

    The files are read again and held against the checkpoint before the folder gets its name. `on_bytes` hears bytes
    of weights written and read again, and their total. Raises UserError if `folder` exists, FoundBad naming the tensor
    if the checkpoint is damaged, has not exactly the model's tensors, each element once and finite, or if what was
    written differs; then nothing is left.
    """
    run = run_of(checkpoint)
    dtype = options.dtype or DTYPES[checkpoint.manifest.precision]
    model = read_model(run.model_config)
    config = load_frozen(run.run_yaml)
    tensors = _tensors(checkpoint, run, config, dtype)
    with new_folder(folder) as beside:
        checkpoint.check_files()
        if options.adapter:
            rows = _reader(checkpoint, checkpoint, checkpoint.shapes())
            digest, num_bytes = write_adapter(beside, checkpoint, config, dtype, rows)
            num_files, difference = 1, None
        else:
            weights = WeightFiles(beside, tensors, options.shard_bytes)
            num_bytes, num_files = weights.num_bytes, len(weights.names)
            digest = _write_whole(checkpoint, weights_of(checkpoint, config, model), weights, on_bytes, run, dtype)
            difference = check_by_engine(run.path, checkpoint.folder, beside) if options.check else None
        exported = Exported(
            folder=folder,
            run=run.name,
            step=checkpoint.manifest.step,
            tokens=checkpoint.manifest.tokens,
            dtype=dtype,
            num_bytes=num_bytes,
            num_files=num_files,
            weights_digest=digest,
            logits_max_rel=difference,
        )
        _write_record(beside / RECORD, exported, checkpoint)
    return exported


def _write_whole(
    checkpoint: Checkpoint,
    source: TensorSource,
    weights: WeightFiles,
    on_bytes: Callable[[int, int], None],
    run: RunDir,
    dtype: DType,
) -> str:
    """Weights, config and tokenizer, read again; the weights' digest."""
    model = read_model(run.model_config)
    progress = _Progress(2 * weights.num_bytes, on_bytes)
    digest = weights.write(_reader(checkpoint, source, tensor_shapes(model)), progress.add)
    write_model_files(run, weights.folder, dtype)
    read_back(source, model, weights.folder, dtype, progress.add)
    return digest


class _Progress:
    """Bytes done of a total, told at each piece."""

    def __init__(self, total: int, on_bytes: Callable[[int, int], None]) -> None:
        self._done, self._total, self._on_bytes = 0, total, on_bytes

    def add(self, size: int) -> None:
        """`size` more."""
        self._done += size
        self._on_bytes(self._done, self._total)


def weights_of(checkpoint: Checkpoint, config: RunConfig, model: ModelShape) -> TensorSource:
    """The model's weights: the checkpoint's own, or those that its adapters and their base make together.

    Raises UserError if the base is not what the adapters were trained on.
    """
    if config.train.lora is None:
        return checkpoint
    require_same_base(config, model, checkpoint.manifest.scalars.get(BASE))
    return Merged(base_of(config, model), checkpoint, config.train.lora, model)


def _tensors(checkpoint: Checkpoint, run: RunDir, config: RunConfig, dtype: DType) -> list[Tensor]:
    """The tensors of the model's config, by name; the checkpoint must have those that the run trains and no others."""
    model = read_model(run.model_config)
    expected, found = trained_shapes(config, model), checkpoint.shapes()
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            problem = f"{name} is {found.get(name, 'missing')}, but {expected.get(name, 'no tensor')} in the model of"
            remedy = "use the config that this checkpoint was trained with"
            raise FoundBad(str(checkpoint.folder), f"{problem} {run.model_config}", remedy)
    return tensors_of(model, dtype)


def _reader(checkpoint: Checkpoint, source: TensorSource, shapes: Mapping[str, tuple[int, ...]]) -> ReadRows:
    def read(name: str, row: int, num_rows: int) -> NDArray[np.float32]:
        place = Rectangle(row=row, num_rows=num_rows, col=0, num_cols=matrix_shape(shapes[name])[1])
        try:
            values = source.read_rectangle(WEIGHT, name, place)
        except FileNotFoundError:
            problem = "was removed while it was read"
            raise UserError(str(checkpoint.folder), problem, "export a newer step or raise checkpoint.keep") from None
        if not np.isfinite(values).all():
            raise FoundBad(str(checkpoint.folder), f"{name} holds NaN or infinity", "export an earlier step")
        return values if len(shapes[name]) == 2 else values.reshape(-1)

    return read


def _write_record(path: Path, exported: Exported, checkpoint: Checkpoint) -> None:
    record = {
        "run": exported.run,
        "step": exported.step,
        "tokens": exported.tokens,
        "checkpoint": str(checkpoint.folder),
        "checkpoint_id": checkpoint_id(checkpoint),
        "dtype": exported.dtype,
        "weights_digest": exported.weights_digest,
        "logits_max_rel": exported.logits_max_rel,
    }
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
