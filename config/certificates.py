"""Certificates of verified layouts: what a layout was shown to compute, bound to the run's options, code and versions.

Written by `trainwright verify-layout`, looked up by `plan` and `submit`. No torch.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .model import ModelShape
from .model_file import model_config
from .run import RunConfig
from .shrinking import shrink
from .versions import installed_versions

_CODE = ("config", "storage/checkpoints", "parallelism")
_NOT_OF_TRAIN: Any = {"schedule": True, "steps": True, "seed": True, "optimizer": {"lr"}}
_OF_DATA = ("document_mask", "reset_positions", "prompt_mask", "sequence_length")
NOT_VERIFIED = "not verified; `trainwright verify-layout` compares it with one rank in about a minute, on a CPU"


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """One layout, verified."""

    key: str
    """Digest of what is certified: the small run, code and versions."""
    created: str
    """When, in UTC."""
    layout: dict[str, int]
    """The small layout that was computed."""
    largest: dict[str, float]
    """Largest relative difference from one rank, by kind."""
    seconds: float
    versions: dict[str, str]
    code: str
    """Digest of the code that was verified."""


def certificate_key(run: RunConfig, model: ModelShape) -> str:
    """What a run's certificate must have as its key. Raises UserError if the layout breaks a rule."""
    small, shape = shrink(run, model)
    data = small.data.model_dump(mode="json")
    facts = {
        "parallelism": small.parallelism.model_dump(mode="json"),
        "train": small.train.model_dump(mode="json", exclude=_NOT_OF_TRAIN),
        "data": {name: data[name] for name in _OF_DATA},
        "model": model_config(shape),
        "ranks": small.cluster.world_size,
        "versions": installed_versions(),
        "code": code_digest(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def find_certificate(run: RunConfig, model: ModelShape) -> Certificate | None:
    """The certificate of a run as it is now, if there is one."""
    key = certificate_key(run, model)
    try:
        return Certificate(**json.loads(_path(run, key).read_text()))
    except (OSError, ValueError, TypeError):  # none, or of another version
        return None


def proof(run: RunConfig, model: ModelShape) -> str | None:
    """Whether the layout was verified, in words; None for one rank, which has nothing to prove."""
    if run.cluster.world_size == 1:
        return None
    found = find_certificate(run, model)
    if found is None:
        return NOT_VERIFIED
    return f"verified at {found.created}: every gradient within {found.largest['gradients, step 1']:.0e} of one rank's"


def write_certificate(run: RunConfig, certificate: Certificate) -> Path:
    """Keep it beside the runs; the file."""
    path = _path(run, certificate.key)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps(asdict(certificate), indent=1) + "\n")
    beside.replace(path)
    return path


def code_digest() -> str:
    """Of every source file that decides what is computed."""
    root, digest = Path(__file__).resolve().parent.parent, hashlib.sha256()
    for folder in _CODE:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def _path(run: RunConfig, key: str) -> Path:
    return Path(run.runs) / ".certificates" / f"{key}.json"
