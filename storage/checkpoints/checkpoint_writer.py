"""Writing one rank's share of a checkpoint, and committing the whole."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from ...config.errors import FoundBad
from ...config.rundir import RunDir
from ..durable import sync
from .checkpoint import DATA_FILE, INDEX_FILE, committed_steps, file_crc32c
from .manifest import FILE_NAME
from .rectangles import Rectangle
from .tensor_source import Float32Array

_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class OwnedRectangle:
    """A rectangle that this rank writes: slot, Hugging Face name, place there, float32 values [num_rows, num_cols]."""

    slot: str
    name: str
    rectangle: Rectangle
    values: Float32Array


def prepare_folder(folder: Path) -> None:
    """Make an empty checkpoint folder; leftovers of a save that never committed are removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)


def write_rank_files(folder: Path, rank: int, owned: Iterable[OwnedRectangle]) -> None:
    """Write this rank's safetensors file and its JSON index (with size and crc32c of both kept for the manifest).

    The bytes go out in one pass, so no second copy of the state is held. Raises OSError if the disk refuses.
    """
    rectangles = list(owned)
    header: dict[str, object] = {}
    index, offset = [], 0
    for number, item in enumerate(rectangles):
        key = f"{item.slot}/{item.name}/{number}"
        size = item.values.nbytes
        header[key] = {"dtype": "F32", "shape": list(item.values.shape), "data_offsets": [offset, offset + size]}
        index.append({"key": key, "slot": item.slot, "name": item.name, **asdict(item.rectangle)})
        offset += size
    data_name = DATA_FILE.format(rank=rank)
    size, checksum = _write(folder / data_name, _safetensors_bytes(header, rectangles))
    record = {"file": data_name, "size": size, "crc32c": checksum, "rectangles": index}
    _write(folder / INDEX_FILE.format(rank=rank), iter([json.dumps(record).encode()]))


def files_written(folder: Path, world_size: int) -> dict[str, dict[str, int]]:
    """The manifest's `files`: size and crc32c of every rank's two files. FoundBad if a rank's files are not there."""
    files: dict[str, dict[str, int]] = {}
    for rank in range(world_size):
        index = folder / INDEX_FILE.format(rank=rank)
        if not index.is_file():
            raise FoundBad(str(index), "was not written", "look at that rank's log")
        record = json.loads(index.read_text(encoding="utf-8"))
        files[record["file"]] = {"size": record["size"], "crc32c": record["crc32c"]}
        files[index.name] = {"size": index.stat().st_size, "crc32c": file_crc32c(index)}
    return files


def remove_old(run: RunDir, keep: int, spare: int | None = None) -> list[int]:
    """Remove all but the newest `keep` committed checkpoints and that of step `spare`; returns the removed steps.

    The manifest goes first, so that a removal cut short leaves no folder that looks like a checkpoint.
    """
    removed = [step for step in committed_steps(run)[:-keep] if step != spare]
    for step in removed:
        (run.checkpoint(step) / FILE_NAME).unlink()
        shutil.rmtree(run.checkpoint(step), ignore_errors=True)
    return removed


def set_aside(folder: Path) -> Path:
    """Rename a corrupt checkpoint so that nobody takes it for one; returns its new place."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.corrupt-{number}")).exists():
        number += 1
    folder.rename(aside)
    sync(folder.parent)
    return aside


def _safetensors_bytes(header: dict[str, object], rectangles: list[OwnedRectangle]) -> Iterator[bytes]:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format's alignment
    yield len(text).to_bytes(8, "little") + text
    for item in rectangles:
        data = np.ascontiguousarray(item.values).reshape(-1).view(np.uint8).data
        for start in range(0, len(data), _BLOCK_BYTES):
            yield bytes(data[start : start + _BLOCK_BYTES])


def _write(path: Path, blocks: Iterator[bytes]) -> tuple[int, int]:
    """Write beside, fsync, rename; returns size in bytes and crc32c."""
    beside = path.with_name(f".{path.name}.partial")
    checksum, size = google_crc32c.Checksum(), 0
    with beside.open("wb") as file:
        for block in blocks:
            file.write(block)
            checksum.update(block)
            size += len(block)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    return size, int.from_bytes(checksum.digest(), "big")
