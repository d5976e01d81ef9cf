"""How shards are best read where they lie: mapped, or plainly; measured where the file system is a shared one."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .locations import Location
from .mounts import filesystem_of, is_local
from .objects import ObjectPath
from .reader import How, TokenStore, open_store
from .shard_map import can_map
from .store import StoreInfo, read_info

_PROBES = 6
_SEQUENTIAL_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a store lies, and how fast it is read there. None: not measured."""

    filesystem: str
    """Its type as the system calls it, such as ext4, nfs4 or lustre."""
    how: How
    map_ms: float | None = None
    """Median time to the first touch of a random chunk of a mapped shard, opening included, in milliseconds."""
    plain_ms: float | None = None
    """The same with a plain read."""


def choose_how(path: Location, info: StoreInfo | None = None) -> Place:
    """How to read a plain store: mapped on local disks, else what a few reads of untouched chunks show to be faster.

    Of an object store only its kind is told: there is one way to read it. `info`: what read_info gives, if it is known.

    Raises UserError and FoundBad as open_store does.
    """
    if isinstance(path, ObjectPath):
        return Place(filesystem=path.scheme, how="plain")
    info, filesystem = info or read_info(path), filesystem_of(path)
    if is_local(filesystem) or info.compression != "none" or not can_map():
        return Place(filesystem=filesystem, how="map" if can_map() else "plain")
    return _measured(path, info, filesystem)


def measure_objects(path: ObjectPath, info: StoreInfo) -> Place:
    """How long a random chunk takes out of an object store, its shard's index included."""
    chunks = np.random.default_rng().integers(0, info.num_chunks, _PROBES)
    times = [_touch(open_store(path), chunk) for chunk in chunks.tolist()]
    return Place(filesystem=path.scheme, how="plain", plain_ms=float(np.median(times)) * 1e3)


def _measured(path: Path, info: StoreInfo, filesystem: str) -> Place:
    """Touch a few random chunks of different shards mapped, and others plainly."""
    draw = np.random.default_rng()
    chunks = draw.permutation(info.num_chunks)[: 2 * _PROBES] if info.num_chunks <= 1 << 20 else None
    if chunks is None:
        chunks = draw.integers(0, info.num_chunks, 2 * _PROBES)
    times: dict[How, list[float]] = {"map": [], "plain": []}
    for turn, chunk in enumerate(chunks.tolist()):
        how: How = "map" if turn % 2 == 0 else "plain"
        times[how].append(_touch(open_store(path, how=how), chunk))
    medians = {how: float(np.median(each)) * 1e3 for how, each in times.items() if each}
    best: How = "plain" if medians.get("plain", np.inf) < medians.get("map", 0.0) else "map"
    return Place(filesystem=filesystem, how=best, map_ms=medians.get("map"), plain_ms=medians.get("plain"))


def _touch(store: TokenStore, chunk: int) -> float:
    start = chunk * store.info.chunk_tokens
    began = time.perf_counter()
    store.read(start, min(start + store.info.chunk_tokens, store.num_tokens))
    elapsed = time.perf_counter() - began
    store.close()
    return elapsed


def sequential_mb_per_s(path: Location, info: StoreInfo) -> float:
    """Rate at which the middle of a random shard is read in one go, 10**6 bytes a second."""
    shard = int(np.random.default_rng().integers(info.num_shards))
    if isinstance(path, ObjectPath):
        began = time.perf_counter()
        done = len((path / "c" / str(shard)).read_range(0, _SEQUENTIAL_BYTES))
        return done / max(time.perf_counter() - began, 1e-9) / 1e6
    descriptor = os.open(path / "c" / str(shard), os.O_RDONLY)
    try:
        size = min(_SEQUENTIAL_BYTES, os.fstat(descriptor).st_size)
        offset = (os.fstat(descriptor).st_size - size) // 2
        began = time.perf_counter()
        done = 0
        while done < size:
            part = len(os.pread(descriptor, size - done, offset + done))
            if not part:
                break
            done += part
        return done / max(time.perf_counter() - began, 1e-9) / 1e6
    finally:
        os.close(descriptor)
