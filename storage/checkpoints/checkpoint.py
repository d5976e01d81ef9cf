"""Reading checkpoints: rectangles of Hugging Face tensors out of whichever files hold them, whoever wrote them."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import google_crc32c
import numpy as np

from ...config.errors import FoundBad, UserError
from ...config.model import ModelShape
from ...config.run import RunConfig
from ...config.rundir import BEST, RunDir, find_run, split_step, step_of
from .adapters import trained_shapes
from .manifest import FILE_NAME, Manifest, read_manifest
from .mapped_tensors import MappedTensors
from .rectangles import Rectangle, matrix_shape
from .tensor_source import Float32Array

DATA_FILE = "rank-{rank:05d}.safetensors"
INDEX_FILE = "rank-{rank:05d}.json"
HELD_OUT = "held_out"
"""Key of the manifest's scalars: loss by held-out store, if the step was evaluated."""


@dataclass(frozen=True)
class _Stored:
    """One rectangle in a file: where its float32 bytes begin."""

    rectangle: Rectangle
    file: str
    offset: int


class Checkpoint:
    """A committed checkpoint, open for reading; files are mapped, so only what is read is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: Manifest = read_manifest(folder)
        self._files = MappedTensors(folder)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Hugging Face name -> shape of every tensor, sorted by name."""
        return {name: tuple(shape) for name, shape in sorted(self.manifest.tensors.items())}

    def read(self, slot: str, name: str, row: int = 0, num_rows: int | None = None) -> Float32Array:
        """Rows [row, row + num_rows) of a tensor (all by default) as float32 of the tensor's own number of dims."""
        shape = tuple(self.manifest.tensors[name])
        rows, cols = matrix_shape(shape)
        num_rows = rows - row if num_rows is None else num_rows
        block = self.read_rectangle(slot, name, Rectangle(row=row, num_rows=num_rows, col=0, num_cols=cols))
        return block if len(shape) == 2 else block.reshape(-1)

    def read_rectangle(self, slot: str, name: str, rectangle: Rectangle) -> Float32Array:
        """See TensorSource. FoundBad unless the files hold every element of it, and none twice."""
        out = np.empty((rectangle.num_rows, rectangle.num_cols), np.float32)
        found, before = 0, list[Rectangle]()
        for stored in self._index[slot, name]:
            part = stored.rectangle.overlap(rectangle)
            if part is None:
                continue
            if any(part.overlap(other) for other in before):
                problem = f"{slot} of {name} has elements that are stored twice"
                raise FoundBad(str(self.folder), problem, "use another checkpoint")
            before.append(part)
            found += part.size
            whole = stored.rectangle
            count = whole.size
            data = self._files.array(stored.file, np.dtype(np.float32), count, stored.offset)
            block = data.reshape(whole.num_rows, whole.num_cols)
            source = block[
                part.row - whole.row : part.row - whole.row + part.num_rows,
                part.col - whole.col : part.col - whole.col + part.num_cols,
            ]
            row, col = part.row - rectangle.row, part.col - rectangle.col
            out[row : row + part.num_rows, col : col + part.num_cols] = source
        if found != rectangle.size:
            problem = f"{slot} of {name} lacks {rectangle.size - found} of {rectangle.size} elements"
            raise FoundBad(str(self.folder), problem, "use another checkpoint")
        return out

    def check_files(self, first: int = 0, stride: int = 1) -> None:
        """Compare size and crc32c of every stride-th file with the manifest; FoundBad names the first bad one."""
        for name, expected in sorted(self.manifest.files.items())[first::stride]:
            path = self.folder / name
            size = path.stat().st_size if path.is_file() else -1
            if size != expected["size"]:
                problem = "is missing" if size < 0 else f"has {size} bytes, not {expected['size']}"
                raise FoundBad(str(path), problem, "use another checkpoint")
            if file_crc32c(path) != expected["crc32c"]:
                raise FoundBad(str(path), "fails its crc32c checksum", "use another checkpoint")

    @cached_property
    def _index(self) -> dict[tuple[str, str], list[_Stored]]:
        index: dict[tuple[str, str], list[_Stored]] = defaultdict(list)
        for name in self.manifest.files:
            if name.endswith(".json"):
                self._read_index(name, index)
        return index

    def _read_index(self, name: str, index: dict[tuple[str, str], list[_Stored]]) -> None:
        try:
            record = json.loads((self.folder / name).read_text(encoding="utf-8"))
            header = self._files.entries(record["file"])
            for item in record["rectangles"]:
                rectangle = Rectangle(**{key: item[key] for key in ("row", "num_rows", "col", "num_cols")})
                index[item["slot"], item["name"]].append(_Stored(rectangle, record["file"], header[item["key"]].start))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FoundBad(str(self.folder / name), f"damaged ({error})", "use another checkpoint") from None


def file_crc32c(path: Path) -> int:
    """crc32c of a file's bytes."""
    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            checksum.update(block)
    return int.from_bytes(checksum.digest(), "big")


def committed_steps(run: RunDir) -> list[int]:
    """Steps of the run's committed checkpoints, oldest first."""
    if not run.checkpoints.is_dir():
        return []
    found = [(step_of(entry), entry) for entry in run.checkpoints.iterdir()]
    return sorted(step for step, entry in found if step is not None and (entry / FILE_NAME).is_file())


def held_out_losses(run: RunDir) -> dict[int, float]:
    """Step -> mean loss over the held-out stores, in nats, of each committed checkpoint whose step was evaluated."""
    losses = {}
    for step in committed_steps(run):
        try:
            held_out = read_manifest(run.checkpoint(step)).scalars.get(HELD_OUT)
        except FoundBad:
            continue
        mean = sum(held_out.values()) / len(held_out) if held_out else math.nan
        if math.isfinite(mean):
            losses[step] = mean
    return losses


def best_step(losses: Mapping[int, float]) -> int | None:
    """The step with the lowest of `held_out_losses`, of equal ones the latest; None if there are none."""
    return min(losses, key=lambda step: (losses[step], -step)) if losses else None


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open a checkpoint folder; UserError if it is none."""
    if not (folder / FILE_NAME).is_file():
        raise UserError(
            str(folder), f"no checkpoint (it has no {FILE_NAME})", "give a folder such as RUN/checkpoints/step-00000100"
        )
    return Checkpoint(folder)


def find_checkpoint(text: str) -> Checkpoint:
    """The checkpoint that a folder, RUN, RUN@STEP or RUN@best means; RUN alone means its newest."""
    if (Path(text) / FILE_NAME).is_file():
        return open_checkpoint(Path(text).absolute())
    name, step = split_step(text)
    run = find_run(name)
    steps = committed_steps(run)
    if not steps:
        raise UserError("RUN@STEP", f"run {run.name} has no checkpoint yet", f"see `trainwright status {name}`")
    if step == BEST:
        step = best_step(held_out_losses(run))
        if step is None:
            remedy = f"give evaluation.stores in the run file, or a step: {steps}"
            raise UserError("RUN@STEP", f"no checkpoint of {run.name} has a held-out loss", remedy)
    if step is not None and step not in steps:
        raise UserError("RUN@STEP", f"{run.name} has no checkpoint of step {step}", f"use one of {steps}")
    return open_checkpoint(run.checkpoint(steps[-1] if step is None else int(step)))


def require_fit(checkpoint: Checkpoint, run: RunConfig, model: ModelShape, tokenizer_fingerprint: str) -> None:
    """UserError unless a run of this model, tokenizer and length can go on from the checkpoint."""
    manifest, where = checkpoint.manifest, checkpoint.folder
    if manifest.step > run.train.steps:
        problem = f"{run.train.steps} is below the step {manifest.step} of checkpoint {where}"
        raise UserError("train.steps", problem, f"use {manifest.step} or more")
    if manifest.tokenizer_fingerprint != tokenizer_fingerprint:
        problem = f"tokenizer {tokenizer_fingerprint[:12]} is not the {manifest.tokenizer_fingerprint[:12]} of {where}"
        raise UserError("data.train", problem, "use stores of the tokenizer that the checkpoint was trained with")
    used, wanted = manifest.scalars.get("optimizer", "adamw"), run.train.optimizer.name
    if used != wanted:
        problem = f"{wanted}, but checkpoint {where} has the state of {used}"
        raise UserError("train.optimizer.name", problem, f"use {used}, or start from its export (checkpoint.init_from)")
    lora = run.train.lora.model_dump(mode="json") if run.train.lora else None
    if manifest.scalars.get("lora") != lora:
        problem = f"{lora}, but checkpoint {where} is of {manifest.scalars.get('lora') or 'all weights'}"
        raise UserError("train.lora", problem, "use what the checkpoint was trained with")
    expected, found = trained_shapes(run, model), checkpoint.shapes()
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            problem = f"{name} has shape {expected.get(name)}, but {found.get(name)} in checkpoint {where}"
            raise UserError("model", problem, "use the model that the checkpoint was made with")
