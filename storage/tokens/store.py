"""What a token store says of itself: its zarr.json, as one checked value. docs/token-store.md describes the folder."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...config.errors import FoundBad, UserError
from ..durable import write_durably
from .geometry import Geometry
from .locations import Location
from .shards import REMEDY, fill_value

FORMAT_VERSION = 4
COMPRESSIONS = ("none", "zstd")
METADATA = "zarr.json"
DOCUMENTS = "documents"
TOKENIZER = "tokenizer"
INVENTORY = "inventory.json"
LOSS_MASK = "loss_mask"
_ATTRIBUTES = "trainwright"
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_ZSTD = {"name": "zstd", "configuration": {"level": 3, "checksum": False}}


@dataclass(frozen=True)
class Generation:
    """A store as it was before it grew again."""

    number: int
    tokens: int
    documents: int


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """Everything that zarr.json holds; its size does not depend on the store's."""

    tokens: int
    documents: int
    dtype: str
    vocab_size: int
    tokenizer_fingerprint: str
    end_of_document: int
    chunk_tokens: int
    """Tokens of one inner chunk."""
    shard_tokens: int
    """Tokens of one shard but the last; a multiple of chunk_tokens."""
    compression: str
    generation: int
    size_bytes: int
    """Bytes of the shards and of all files that the inventory names."""
    inventory_bytes: int
    """Size of inventory.json."""
    inventory_digest: str
    deduplication: dict[str, Any] | None = None
    """`kind`, `dropped_exact`, `dropped_near` and, of the kind near, `near_threshold`; None if nothing was dropped."""
    trained_tokens: int | None = None
    """Tokens of the newest generation that are learnt to be predicted; None if there is no mask, so that all are."""
    earlier: tuple[Generation, ...] = ()
    """Generations before this one, from the first on."""
    pending: bool = False
    """Whether an append was stopped while it replaced files: growing.finish_append does the rest."""

    @property
    def generations(self) -> tuple[Generation, ...]:
        """All that can be read, from the first to this one."""
        return (*self.earlier, Generation(self.generation, self.tokens, self.documents))

    def at_generation(self, number: int) -> "StoreInfo":
        """The store as it was: the same files, of whose tokens and documents the first are its own.

        What is said of the files themselves (size_bytes, inventory) stays the newest's. Raises UserError for a
        generation that there is not.
        """
        for known in self.generations:
            if known.number == number:
                earlier = tuple(each for each in self.earlier if each.number < number)
                return replace(self, generation=number, tokens=known.tokens, documents=known.documents, earlier=earlier)
        numbers = ", ".join(str(known.number) for known in self.generations)
        raise UserError("generation", f"{number}, which the store does not have", f"use one of {numbers}")

    @property
    def chunks_per_shard(self) -> int:
        return self.geometry.chunks_per_shard

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)

    @property
    def geometry(self) -> Geometry:
        """Of the array of tokens."""
        return Geometry(self.tokens, self.numpy_dtype, self.chunk_tokens, self.shard_tokens)

    @property
    def num_shards(self) -> int:
        return self.geometry.num_shards

    @property
    def num_chunks(self) -> int:
        """Inner chunks in use, in all shards."""
        return self.geometry.num_chunks


def dtype_for(vocab_size: int) -> str:
    """uint16 as long as every token id fits."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def write_info(folder: Path, info: StoreInfo) -> None:
    """Write zarr.json beside its place and rename it there; it is what makes the folder a store."""
    record = _array(info.tokens, info.dtype, info.shard_tokens, _sharding_of(info))
    record["attributes"] = {_ATTRIBUTES: {"format_version": FORMAT_VERSION, **_attributes(info)}}
    record["attributes"][_ATTRIBUTES]["metadata_sha256"] = _digest(record)
    write_durably(folder / METADATA, json.dumps(record, indent=1).encode())


def write_index_info(folder: Path, length: int, chunk: int, shard: int) -> None:
    """zarr.json of an index array: uint64 [length], so many values in a chunk and in a shard."""
    record = _array(length, "uint64", shard, _sharding(chunk, []))
    write_durably(folder / METADATA, json.dumps(record, indent=1).encode())


def write_mask_info(folder: Path, info: StoreInfo) -> None:
    """zarr.json of the loss mask, whose shards and chunks hold the same tokens as the store's."""
    record = _array(info.tokens, info.dtype, info.shard_tokens, _sharding_of(info))
    write_durably(folder / METADATA, json.dumps(record, indent=1).encode())


def read_info(store: Location) -> StoreInfo:
    """Read and check zarr.json.

    Raises UserError if `store` is no token store, FoundBad naming the file if it is one whose zarr.json is damaged.
    """
    path = store / METADATA
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        remedy = "give the folder that `trainwright data build` made"
        raise UserError(str(store), "not a token store (it has no zarr.json)", remedy) from None
    try:
        record = json.loads(data)
    except ValueError:
        raise FoundBad(str(path), "not JSON", REMEDY) from None
    attributes = _part(_part(record, "attributes"), _ATTRIBUTES)
    if not isinstance(attributes, dict):
        raise UserError(str(path), "not that of a token store", "give a folder that `trainwright data build` made")
    if attributes.get("format_version") != FORMAT_VERSION:
        version = attributes.get("format_version")
        remedy = "build the store again" if version in (1, 2, 3) else "use a newer trainwright"
        raise UserError(str(path), f"format_version {version!r} is not {FORMAT_VERSION}", remedy)
    if attributes.pop("metadata_sha256", None) != _digest(record):
        raise FoundBad(str(path), "its text was changed (metadata_sha256 differs)", REMEDY)
    return _info(record, attributes)


def _part(record: object, key: str) -> object:
    return record.get(key) if isinstance(record, dict) else None


def _info(record: dict[str, Any], attributes: dict[str, Any]) -> StoreInfo:
    sharding = record["codecs"][0]["configuration"]
    codecs = [codec["name"] for codec in sharding["codecs"]]
    tokenizer, documents = attributes["tokenizer"], attributes["documents"]
    return StoreInfo(
        tokens=record["shape"][0],
        documents=documents["count"],
        dtype=record["data_type"],
        vocab_size=tokenizer["vocab_size"],
        tokenizer_fingerprint=tokenizer["fingerprint"],
        end_of_document=tokenizer["end_of_document"],
        chunk_tokens=sharding["chunk_shape"][0],
        shard_tokens=record["chunk_grid"]["configuration"]["chunk_shape"][0],
        compression="zstd" if "zstd" in codecs else "none",
        generation=attributes["generation"],
        size_bytes=attributes["size_bytes"],
        inventory_bytes=attributes["inventory"]["size_bytes"],
        inventory_digest=attributes["inventory"]["digest"],
        deduplication=attributes.get("deduplication"),
        trained_tokens=attributes.get("loss_mask", {}).get("trained_tokens"),
        earlier=tuple(Generation(**each) for each in attributes.get("earlier_generations", [])),
        pending=attributes.get("pending", False),
    )


def _attributes(info: StoreInfo) -> dict[str, Any]:
    return {
        "generation": info.generation,
        "tokenizer": {
            "folder": TOKENIZER,
            "fingerprint": info.tokenizer_fingerprint,
            "vocab_size": info.vocab_size,
            "end_of_document": info.end_of_document,
        },
        "documents": {"array": DOCUMENTS, "count": info.documents},
        "size_bytes": info.size_bytes,
        "inventory": {"file": INVENTORY, "size_bytes": info.inventory_bytes, "digest": info.inventory_digest},
        **({} if info.deduplication is None else {"deduplication": info.deduplication}),
        **(
            {}
            if info.trained_tokens is None
            else {"loss_mask": {"array": LOSS_MASK, "trained_tokens": info.trained_tokens}}
        ),
        **({"earlier_generations": [asdict(each) for each in info.earlier]} if info.earlier else {}),
        **({"pending": True} if info.pending else {}),
    }


def _array(length: int, dtype: str, shard: int, sharding: dict[str, Any]) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [length],
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [shard]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill_value(np.dtype(dtype)),
        "codecs": [sharding],
        "attributes": {},
    }


def _sharding_of(info: StoreInfo) -> dict[str, Any]:
    return _sharding(info.chunk_tokens, [] if info.compression == "none" else [_ZSTD])


def _sharding(chunk: int, codecs: list[dict[str, Any]]) -> dict[str, Any]:
    """Inner chunks of `chunk` items: their bytes, what else is done with them, and a crc32c."""
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [chunk],
            "codecs": [_BYTES, *codecs, {"name": "crc32c"}],
            "index_codecs": [_BYTES, {"name": "crc32c"}],
            "index_location": "end",
        },
    }


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
