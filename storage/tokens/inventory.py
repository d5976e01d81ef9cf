"""The inventory of a token store: size, digest and histogram of each shard, size and digest of every other file.

Checking reads it; training does not, so that a store of 100,000 shards opens as fast as one of ten.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...config.errors import FoundBad
from ..durable import write_durably
from .digest import digest_of
from .locations import Location, file_digest
from .shards import REMEDY, ShardSummary
from .store import INVENTORY, StoreInfo


@dataclass(frozen=True)
class Inventory:
    """What inventory.json holds."""

    shards: tuple[ShardSummary, ...]
    files: dict[str, dict[str, Any]]
    """`size_bytes` and `digest` of the other files, by path in the store."""

    @property
    def expected(self) -> dict[str, tuple[int, str]]:
        """Size in bytes and digest of every file named here, shards first, by path in the store."""
        shards = {shard.file: (shard.size_bytes, shard.digest) for shard in self.shards}
        return shards | {name: (int(file["size_bytes"]), str(file["digest"])) for name, file in self.files.items()}

    @property
    def size_bytes(self) -> int:
        """Bytes of all files named here."""
        return sum(size for size, _ in self.expected.values())


def take_inventory(folder: Path, shards: tuple[ShardSummary, ...], names: list[str]) -> Inventory:
    """The shards as their writer summed them up, and the named other files of `folder`, read now."""
    files = {}
    for name in sorted(names):
        size, digest = file_digest(folder / name)
        files[name] = {"size_bytes": size, "digest": digest}
    return Inventory(shards, files)


def write_inventory(folder: Path, inventory: Inventory) -> tuple[int, str]:
    """Write inventory.json, one line for each shard and file; its size in bytes and digest."""
    shards = ",\n".join(json.dumps(asdict(shard)) for shard in inventory.shards)
    files = ",\n".join(f"{json.dumps(name)}: {json.dumps(file)}" for name, file in inventory.files.items())
    data = f'{{"shards": [\n{shards}\n],\n"files": {{\n{files}\n}}}}\n'.encode()
    write_durably(folder / INVENTORY, data)
    return len(data), digest_of(data)


def read_inventory(store: Location, info: StoreInfo) -> Inventory:
    """Read inventory.json. Raises FoundBad naming it if it is missing, is not the recorded one, or does not add up."""
    path = store / INVENTORY
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FoundBad(str(path), "missing", REMEDY) from None
    if len(data) < info.inventory_bytes:
        raise FoundBad(str(path), f"truncated ({len(data)} bytes instead of {info.inventory_bytes})", REMEDY)
    if digest_of(data) != info.inventory_digest:
        raise FoundBad(str(path), "its digest is not the recorded one", REMEDY)
    record = json.loads(data)
    inventory = Inventory(tuple(ShardSummary(**shard) for shard in record["shards"]), record["files"])
    lengths = [shard.tokens for shard in inventory.shards]
    if sum(lengths) != info.tokens or any(length != info.shard_tokens for length in lengths[:-1]):
        raise FoundBad(str(path), "its shards do not add up to the store's tokens", REMEDY)
    return inventory
