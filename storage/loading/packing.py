"""Best-fit packing of a store's documents into samples: an index, made once for a sequence length, kept in the store.

A document of at most S + 1 tokens stands whole in one sample; a longer one is cut into pieces of S + 1 tokens that
overlap by one, so that each of its tokens but the first is predicted once. docs/token-store.md describes the files.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...config.errors import FoundBad, UserError
from ..durable import sync, write_durably
from ..tokens.index_array import IndexArray
from ..tokens.index_writer import IndexWriter
from ..tokens.locations import Location, check_sizes, file_digest
from ..tokens.objects import ObjectPath
from ..tokens.reader import TokenStore, open_store
from .best_fit import Group, best_fit

PACKING = "packing"
VERSION = 3
AGAIN = "remove the folder and pack again"
_RECORD = "packing.json"
_PARTS = ("places", "lengths", "samples")
Values = NDArray[np.int64]
P = TypeVar("P", Path, ObjectPath, Path | ObjectPath)


@dataclass(frozen=True, kw_only=True)
class PackingInfo:
    """What packing.json says."""

    version: int
    sequence_length: int
    generation: int
    num_samples: int
    num_pieces: int
    cut_documents: int
    """Documents that are longer than a sample."""
    dropped_documents: int
    """Documents of one token, which predict nothing."""
    padding: int
    """Places of all samples that hold no token."""
    files: dict[str, dict[str, Any]]
    """Size and digest of each file."""


def pack_store(path: Path, sequence_length: int) -> PackingInfo:
    """Make the index of a store's newest generation for samples of `sequence_length` tokens; it is whole or absent.

    All documents' lengths are in memory meanwhile. Raises UserError if it exists, FoundBad if the store is damaged.
    """
    if sequence_length < 2:
        raise UserError("--sequence-length", f"{sequence_length} is below 2", "give the tokens of a sample")
    store = open_store(path)
    folder = packing_folder(path, sequence_length, store.info.generation)
    if folder.exists():
        raise UserError(str(folder), "exists already", "remove it to pack again")
    starts = store.document_index.get(0, store.info.documents).astype(np.int64)
    lengths = np.diff(starts, append=store.num_tokens)
    places, sizes = _pieces(starts, lengths, sequence_length)
    groups = best_fit(np.bincount(sizes, minlength=1), sequence_length + 1)
    order, firsts = _deal(groups, sizes)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        info = _write(beside, store, sequence_length, (places[order], sizes[order], firsts))
        info = _with_counts(info, lengths, sequence_length)
        write_durably(beside / _RECORD, json.dumps(asdict(info), indent=1).encode())
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    sync(folder.parent)
    return info


def packing_folder(store: P, sequence_length: int, generation: int) -> P:
    """Where a store keeps a generation's index for a sequence length."""
    folder: P = store / PACKING / str(generation) / str(sequence_length)
    return folder


def _pieces(starts: Values, lengths: Values, length: int) -> tuple[Values, Values]:
    """First token and length of every piece of every document of two tokens or more."""
    kept = lengths > 1
    starts, lengths = starts[kept], lengths[kept]
    counts = -(-(lengths - 1) // length)
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    offsets = nth * length
    sizes = np.minimum(np.repeat(lengths, counts) - offsets, length + 1)
    return np.repeat(starts, counts) + offsets, sizes


def _deal(groups: list[Group], sizes: Values) -> tuple[Values, Values]:
    """Pieces in the order of samples, and the first piece of each sample and their end.

    Pieces of one length are dealt out in the order of the store.
    """
    by_length = np.argsort(sizes, kind="stable")
    bounds = np.searchsorted(sizes[by_length], np.arange(int(sizes.max(initial=0)) + 2))
    taken = bounds.copy()
    order, counts = [], []
    for group in groups:
        columns = []
        for length, each in group.pieces:
            first = int(taken[length])
            taken[length] += group.count * each
            columns.append(by_length[first : first + group.count * each].reshape(group.count, each))
        rows = np.concatenate(columns, axis=1)
        order.append(rows.reshape(-1))
        counts.append(np.full(group.count, rows.shape[1]))
    assert np.array_equal(taken[:-1], bounds[1:]), "every piece is in one sample"
    none = np.zeros(0, np.int64)
    firsts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate([none, *counts]))])
    return np.concatenate([none, *order]), firsts


def _write(folder: Path, store: TokenStore, length: int, arrays: tuple[Values, Values, Values]) -> PackingInfo:
    files = {}
    for name, values in zip(_PARTS, arrays, strict=True):
        writer = IndexWriter(folder / name)
        writer.append(values.astype(np.uint64))
        writer.finish()
        for each in writer.files:
            size, digest = file_digest(folder / name / each)
            files[f"{name}/{each}"] = {"size_bytes": size, "digest": digest}
    num_samples = len(arrays[2]) - 1
    return PackingInfo(
        version=VERSION,
        sequence_length=length,
        generation=store.info.generation,
        num_samples=num_samples,
        num_pieces=len(arrays[0]),
        cut_documents=0,
        dropped_documents=0,
        padding=num_samples * (length + 1) - int(arrays[1].sum()),
        files=files,
    )


def _with_counts(info: PackingInfo, lengths: Values, length: int) -> PackingInfo:
    cut, dropped = int((lengths > length + 1).sum()), int((lengths < 2).sum())
    return PackingInfo(**{**asdict(info), "cut_documents": cut, "dropped_documents": dropped})


class Packing:
    """The index of a store for one sequence length, open for reading."""

    def __init__(self, store: Location, sequence_length: int, generation: int) -> None:
        """Raises UserError if the generation was not packed for this length, FoundBad naming what is damaged."""
        self._folder = folder = packing_folder(store, sequence_length, generation)
        try:
            record = json.loads((folder / _RECORD).read_bytes())
            self.info = PackingInfo(**record)
        except (FileNotFoundError, NotADirectoryError):
            problem = f"best_fit needs an index of {store}, generation {generation}, for length {sequence_length}"
            remedy = f"run `trainwright data pack {store} --sequence-length {sequence_length}`"
            raise UserError("data.packing", problem, remedy) from None
        except (ValueError, TypeError):
            raise FoundBad(
                str(folder / _RECORD), "not what `data pack` wrote", "remove the folder and pack again"
            ) from None
        info = self.info
        if info.version != VERSION:
            raise UserError(str(folder), f"packing version {info.version} is not {VERSION}", AGAIN)
        lengths = {"places": info.num_pieces, "lengths": info.num_pieces, "samples": info.num_samples + 1}
        self._arrays = {name: IndexArray(folder / name, lengths[name]) for name in _PARTS}

    def pieces(self, samples: Values) -> tuple[Values, Values, Values]:
        """First token, length, and row (the sample's place in `samples`) of every piece of some samples, int64.

        Raises FoundBad naming the shard that is damaged.
        """
        bounds = self._arrays["samples"].get_pieces(samples, np.full(len(samples), 2)).astype(np.int64)
        firsts, counts = bounds[::2], bounds[1::2] - bounds[::2]
        places, lengths = (self._arrays[name].get_pieces(firsts, counts) for name in ("places", "lengths"))
        return places.astype(np.int64), lengths.astype(np.int64), np.repeat(np.arange(len(samples)), counts)

    def check_files(self) -> None:
        """Raises FoundBad naming a file that is missing or has another size."""
        check_sizes(self._folder, {name: file["size_bytes"] for name, file in self.info.files.items()})

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of all files: one name for this packing."""
        text = json.dumps({name: file["digest"] for name, file in sorted(self.info.files.items())})
        return hashlib.sha256(text.encode()).hexdigest()


def packings_of(store: Location) -> list[tuple[int, int]] | None:
    """Generation and sequence length of all indices of a store; None where they cannot be listed, as over HTTP."""
    if isinstance(store, Path):
        names = [str(path.relative_to(store / PACKING)) for path in (store / PACKING).glob("*/*/packing.json")]
    else:
        sizes = (store / PACKING).sizes()
        if sizes is None:
            return None
        names = list(sizes)
    found = [name.split("/") for name in names]
    numbered = [each for each in found if len(each) == 3 and each[2] == _RECORD and (each[0] + each[1]).isdigit()]
    return sorted((int(generation), int(length)) for generation, length, _ in numbered)


def packing_files(store: Location, sequence_length: int, generation: int) -> dict[str, tuple[int, str]]:
    """Size and digest of an index's files, by path in the store. Raises as Packing does."""
    packing = Packing(store, sequence_length, generation)
    folder = f"{PACKING}/{generation}/{sequence_length}"
    files = {f"{folder}/{name}": (file["size_bytes"], file["digest"]) for name, file in packing.info.files.items()}
    return files | {f"{folder}/{_RECORD}": file_digest(store / folder / _RECORD)}


def verify_packings(store: Location) -> None:
    """Check every file of all indices of a store that can be listed. Raises FoundBad naming the first that is bad."""
    for generation, length in packings_of(store) or []:
        packing, folder = Packing(store, length, generation), packing_folder(store, length, generation)
        packing.check_files()
        for name, file in packing.info.files.items():
            if file_digest(folder / name)[1] != file["digest"]:
                raise FoundBad(str(folder / name), "its digest is not the recorded one", AGAIN)
