"""manifest.json: what a checkpoint is. It is written last, by rename; a folder without one is no checkpoint."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ...config.errors import FoundBad
from ..durable import sync

FORMAT_VERSION = 2
FILE_NAME = "manifest.json"
_OWN = "digest"
"""Key of the digest of all the others: a position that has lost a digit would go unnoticed."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Contents of manifest.json."""

    format_version: int
    step: int
    """Optimizer steps done."""
    tokens: int
    """Tokens trained on so far (those that counted in the loss)."""
    position: int
    """Samples consumed so far: the whole state of the data order."""
    order: dict[str, Any]
    """Version, seed and window of the data order."""
    scalars: dict[str, Any]
    """Optimizer step count, learning rate, schedule, and the rule of random state."""
    layout: dict[str, int]
    """Layout that wrote it; any layout can read it."""
    engine: str
    precision: str
    versions: dict[str, str]
    tensors: dict[str, list[int]]
    """Hugging Face name -> shape of every tensor."""
    slots: list[str]
    """What each tensor has: "weight" (fp32 master) and the optimizer's own slots."""
    files: dict[str, dict[str, int]]
    """File name -> {"size": bytes, "crc32c": checksum}."""
    tokenizer_fingerprint: str
    snapshot_digest: str
    wandb_id: str | None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Commit a checkpoint: write beside, fsync, rename, fsync the folder."""
    beside = folder / f".{FILE_NAME}.partial"
    with beside.open("w", encoding="utf-8") as file:
        record = asdict(manifest)
        json.dump({**record, _OWN: _digest(record)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(folder / FILE_NAME)
    sync(folder)


def read_manifest(folder: Path) -> Manifest:
    """Read a manifest; FoundBad names the file if it is damaged or of a later format."""
    path = folder / FILE_NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = record["format_version"]
        if version == FORMAT_VERSION:
            manifest = Manifest(**{field.name: record[field.name] for field in fields(Manifest)})
            own = record.pop(_OWN)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FoundBad(str(path), f"damaged ({error})", "use another checkpoint") from None
    if version != FORMAT_VERSION:
        raise FoundBad(str(path), f"format {version!r} is unknown", "read it with the trainwright that wrote it")
    if own != _digest(record):
        raise FoundBad(str(path), "fails its own checksum", "use another checkpoint")
    return manifest


def _digest(record: dict[str, Any]) -> str:
    """Of all fields, however they are written down."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def manifest_digest(folder: Path) -> str:
    """SHA-256 of a checkpoint's manifest, in hexadecimal: it stands for the whole, whose checksums are in it."""
    return hashlib.sha256((folder / FILE_NAME).read_bytes()).hexdigest()
