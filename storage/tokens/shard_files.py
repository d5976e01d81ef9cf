"""The shard files of a store: where they are, how long they must be, and their indices, checked on opening."""

import os
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from ...config.errors import FoundBad
from .geometry import Geometry
from .objects import ObjectPath
from .shards import ABSENT, CRC_BYTES, REMEDY, Index, crc32c

_ENTRY_BYTES = 16
_KEPT_PATHS = 1024  # a Path and its text are not made anew for each chunk
P = TypeVar("P", Path, ObjectPath)


class ShardRules(Generic[P]):
    """How long shards must be, and what their indices must say. Every error names the file."""

    def __init__(self, folder: P, geometry: Geometry) -> None:
        self._folder: P = folder / "c"
        self._geometry = geometry
        self._paths: dict[int, P] = {}
        self.index_bytes = geometry.chunks_per_shard * _ENTRY_BYTES + CRC_BYTES

    def path(self, shard: int) -> P:
        """Path of a shard's file."""
        path = self._paths.get(shard)
        if path is None:
            if len(self._paths) >= _KEPT_PATHS:
                self._paths.clear()
            path = self._paths[shard] = self._folder / str(shard)
        return path

    def path_of_chunk(self, chunk: int) -> P:
        """Path of the shard that holds an inner chunk of the store."""
        return self.path(chunk // self._geometry.chunks_per_shard)

    def num_used(self, shard: int) -> int:
        """Inner chunks of a shard that are in use."""
        per_shard = self._geometry.chunks_per_shard
        return min(per_shard, self._geometry.num_chunks - shard * per_shard)

    def check_plain_size(self, shard: int, size: int) -> None:
        """Raises FoundBad unless a shard of a store without compression has its size in bytes."""
        expected = self.num_used(shard) * self._geometry.stride + self.index_bytes
        grown = size > expected and self._may_have_grown(shard) and (size - expected) % self._geometry.stride == 0
        if size != expected and not grown:
            kind = "truncated" if size < expected else "too long"
            raise FoundBad(str(self.path(shard)), f"{kind} ({size} bytes instead of {expected})", REMEDY)

    def check_plain_index(self, shard: int, index: Index) -> None:
        """Raises FoundBad unless an index is that of a store without compression."""
        wanted = np.arange(self.num_used(shard), dtype=np.uint64) * np.uint64(self._geometry.stride)
        if (index[:, 0] != wanted).any() or (index[:, 1] != self._geometry.stride).any():
            problem = "its index does not fit the file: inner chunks of a plain store follow each other"
            raise FoundBad(str(self.path(shard)), problem, REMEDY)

    def check_offsets(self, shard: int, index: Index, size: int) -> None:
        """Raises FoundBad if an index points outside its file of `size` bytes."""
        limit = np.uint64(size - self.index_bytes)
        lengths, offsets = index[:, 1], index[:, 0]
        # Compared without adding first: offset + length could wrap around.
        good = (lengths > CRC_BYTES) & (lengths <= limit) & (offsets <= limit - np.minimum(lengths, limit))
        if not good.all():
            raise FoundBad(str(self.path(shard)), "its index does not fit the file", REMEDY)

    def check_room(self, shard: int, size: int) -> None:
        """Raises FoundBad if a file of `size` bytes is too short to have an index."""
        if size < self.index_bytes:
            problem = f"truncated: {size} bytes are too few for its index"
            raise FoundBad(str(self.path(shard)), problem, REMEDY)

    def index(self, shard: int, data: bytes) -> Index:
        """The used part of an index out of a shard's last index_bytes bytes. Raises FoundBad if it is damaged."""
        path, used = str(self.path(shard)), self.num_used(shard)
        if crc32c(data[:-CRC_BYTES]) != data[-CRC_BYTES:]:
            raise FoundBad(path, "its index fails its crc32c, or it is truncated", REMEDY)
        index = np.frombuffer(data[:-CRC_BYTES], "<u8").reshape(-1, 2)
        if (index[used:] != ABSENT).any() and not self._may_have_grown(shard):
            raise FoundBad(path, "its index does not fit the file", REMEDY)
        return index[:used]

    def _may_have_grown(self, shard: int) -> bool:
        """Whether it is this generation's last, to which a later one may have added: ours is the first part of it."""
        return shard == self._geometry.num_shards - 1


class ShardFiles(ShardRules[Path]):
    """Opens shards by number. Every error names the file."""

    def __init__(self, folder: Path, geometry: Geometry) -> None:
        super().__init__(folder, geometry)
        self.folder = os.fsencode(self._folder)
        self.known = np.zeros(geometry.num_shards, bool)
        """Shards whose index was checked."""

    def open_plain(self, shard: int) -> tuple[int, int]:
        """Descriptor (the caller closes it) and size in bytes of a shard of a store without compression.

        Raises FoundBad if it is missing or of the wrong size, or its index is damaged or not that of a plain store.
        """
        descriptor = self._open(shard)
        try:
            size = os.fstat(descriptor).st_size
            self.check_plain_size(shard, size)
            if not self.known[shard]:
                self.check_plain_index(shard, self._read_index(shard, descriptor, size))
                self.known[shard] = True
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, size

    def open_indexed(self, shard: int) -> tuple[int, Index]:
        """Descriptor (the caller closes it) and offset and size of each used inner chunk, uint64 [used, 2].

        Raises FoundBad if the file is missing, or its index is damaged or points outside the file.
        """
        descriptor = self._open(shard)
        try:
            size = os.fstat(descriptor).st_size
            index = self._read_index(shard, descriptor, size)
            self.check_offsets(shard, index, size)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, index

    def _open(self, shard: int) -> int:
        path = self.path(shard)
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise FoundBad(str(path), "missing", REMEDY) from None
        except OSError as error:
            raise FoundBad(str(path), f"cannot be opened ({error.strerror})", "check its permissions") from None

    def _read_index(self, shard: int, descriptor: int, size: int) -> Index:
        self.check_room(shard, size)
        place, path = size - self.index_bytes, str(self.path(shard))
        return self.index(shard, read_exactly(descriptor, self.index_bytes, place, path))


def read_exactly(descriptor: int, size: int, offset: int, path: str) -> bytes:
    """Bytes offset..offset+size-1 of an open file. Raises FoundBad naming it if it ends before or cannot be read."""
    parts = []
    while size:
        try:
            part = os.pread(descriptor, size, offset)
        except OSError as error:
            raise FoundBad(path, f"byte {offset} cannot be read ({error.strerror})", REMEDY) from None
        if not part:
            raise FoundBad(path, f"truncated: it ends before byte {offset + size}", REMEDY)
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
