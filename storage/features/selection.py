"""A selection: which documents of a store are taken, and with which weight; one file, and a digest over all it says."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config.errors import FoundBad, UserError
from ..durable import sync, write_durably

FORMAT, VERSION = "trainwright selection", 1
_RECORD, _WEIGHTS = "selection.json", "weights.npy"
_REMEDY = "restore the file from a copy, or select again"
_MEMBER_TIME = (1980, 1, 1, 0, 0, 0)  # the same selection is the same bytes
Weights = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Selection:
    """What was asked, of which store and features, and the answer."""

    record: Mapping[str, Any]
    """Everything but the weights, as docs/features.md lists it."""
    weights: Weights
    """Of each document in the store's order, float64 [documents]; 0 is left out."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the record (JSON, keys sorted, no spaces), a zero byte, and the weights as little-endian."""
        hasher = hashlib.sha256(canonical(self.record) + b"\0")
        hasher.update(np.ascontiguousarray(self.weights, "<f8").data)
        return hasher.hexdigest()

    def to_bytes(self) -> bytes:
        """The file: an .npz with `weights` and `selection.json`."""
        array, file = io.BytesIO(), io.BytesIO()
        np.save(array, np.ascontiguousarray(self.weights, "<f8"))
        text = json.dumps({**self.record, "digest": self.digest}, indent=1, sort_keys=True)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, data in ((_RECORD, text.encode()), (_WEIGHTS, array.getvalue())):
                archive.writestr(zipfile.ZipInfo(name, _MEMBER_TIME), data)
        return file.getvalue()

    def write(self, path: Path) -> None:
        """Write the file beside its place and rename it. Raises OSError with its name if the disk refuses."""
        write_durably(path, self.to_bytes())
        sync(path.parent)


def canonical(record: object) -> bytes:
    """JSON with sorted keys and without spaces, in ASCII."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def read_selection(path: Path) -> Selection:
    """Read a selection. Raises UserError if it is none, FoundBad if it was changed."""
    if not path.is_file():
        raise UserError(str(path), "no such selection", "give a file that `trainwright data features select` made")
    try:
        with zipfile.ZipFile(path) as archive:
            record = json.loads(archive.read(_RECORD))
            weights = np.load(io.BytesIO(archive.read(_WEIGHTS)), allow_pickle=False)
        digest, known = record.pop("digest"), (record["format"], record["version"]) == (FORMAT, VERSION)
    except (
        zipfile.BadZipFile,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        RuntimeError,  # zipfile's, for a flag that says "encrypted"; NotImplementedError is one too
        OSError,
    ) as error:
        raise FoundBad(str(path), f"not a whole selection ({error})", _REMEDY) from None
    if not known:
        raise UserError(str(path), f"version {record['version']!r} is not {VERSION}", "use a newer trainwright")
    selection = Selection(record, weights)
    if selection.digest != digest:
        raise FoundBad(str(path), "its content was changed (its digest differs)", _REMEDY)
    return selection
