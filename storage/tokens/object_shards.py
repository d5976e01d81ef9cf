"""Shards in an object store: chunks that lie together come in one range request, several of them under way at once."""

import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config.errors import FoundBad
from .geometry import Geometry
from .objects import ObjectPath, Unreadable
from .shard_files import ShardRules
from .shards import CRC_BYTES, REMEDY, BadChunk, Index, Tokens, crc32c, decode_chunk
from .wanted import Wanted

_REQUESTS = 16  # under way at once; they wait for the network, not for the interpreter's lock
_MAX_INDICES = 256
_POOL_BYTES = 64 << 20
_RANGE_BYTES = 4 << 20
_GAP_BYTES = 128 << 10  # fetching this much in vain costs less than another request


def pool_chunks(geometry: Geometry, at_least: int) -> int:
    """How many chunks of a store's tokens are kept: 64 MiB of them, or more if told so."""
    return max(at_least, _POOL_BYTES // (geometry.chunk * geometry.dtype.itemsize))


class ObjectShards:
    """Gathers tokens out of fetched chunks; as ShardMap, which see, but for how. Each chunk is checked as it comes."""

    def __init__(
        self, folder: ObjectPath, geometry: Geometry, compression: str, max_kept: int, check: bool = True
    ) -> None:
        """The shards of an array; at most `max_kept` chunks are kept, and those used last stay."""
        self._rules, self._geometry, self._check = ShardRules(folder, geometry), geometry, check
        self._compression, self._max_kept = compression, max_kept
        self._kept: OrderedDict[int, Future[Tokens]] = OrderedDict()
        self._indices: OrderedDict[int, Index] = OrderedDict()  # of compressed shards
        self._good = np.zeros(geometry.num_shards, bool)
        self._lock = threading.Lock()
        self._index_locks = [threading.Lock() for _ in range(_REQUESTS)]  # so that no index is fetched twice at once
        self._pool = ThreadPoolExecutor(_REQUESTS, thread_name_prefix="objects")
        self._closer = weakref.finalize(self, _end, self._pool, self._kept)

    def fill(self, wanted: Wanted, out: NDArray[Any]) -> None:
        """See ShardMap.fill. Raises Unreadable naming shard and chunk if the object store does not answer."""
        flat = out.reshape(-1)
        parts = sorted(wanted.by_chunk(out, self._geometry.length, self._geometry.chunk))
        chunks = iter(sorted({chunk for chunk, *_ in parts}))
        coming: dict[int, Future[Tokens]] = {}
        for chunk, offset, to, count in parts:
            if chunk not in coming:
                coming = self._want(islice(chunks, self._max_kept))
            flat[to : to + count] = coming[chunk].result()[offset : offset + count]

    peek = fill

    def will_need(self, wanted: Wanted, out: NDArray[Any]) -> None:
        """Begin to fetch what `fill` is soon called with, in ascending order, as far as there is room to keep it."""
        parts = wanted.by_chunk(out, self._geometry.length, self._geometry.chunk)
        self._want(sorted({chunk for chunk, *_ in parts})[: self._max_kept])

    def close(self) -> None:
        """End the threads; what is under way is not waited for, and who waits for it gets CancelledError."""
        self._closer()

    def _want(self, chunks: Iterable[int]) -> dict[int, "Future[Tokens]"]:
        """The chunks (ascending) as they come; those that are not kept are asked for."""
        coming: dict[int, Future[Tokens]] = {}
        absent: list[int] = []
        with self._lock:
            for chunk in chunks:
                future = self._kept.get(chunk)
                if future is None or (future.done() and future.exception()):
                    future = self._kept[chunk] = Future()
                    absent.append(chunk)
                self._kept.move_to_end(chunk)
                coming[chunk] = future
            while len(self._kept) > self._max_kept:
                self._kept.popitem(last=False)
        for run in self._runs(absent):
            self._pool.submit(self._fetch, {chunk: coming[chunk] for chunk in run})
        return coming

    def _runs(self, chunks: list[int]) -> Iterator[list[int]]:
        """Chunks of one shard that lie close enough together to be read at once."""
        stride, per_shard = self._geometry.stride, self._geometry.chunks_per_shard
        run: list[int] = []
        for chunk in chunks:
            if run and not (
                chunk // per_shard == run[0] // per_shard
                and (chunk - run[-1] - 1) * stride <= _GAP_BYTES
                and (chunk - run[0] + 1) * stride <= _RANGE_BYTES
            ):
                yield run
                run = []
            run.append(chunk)
        if run:
            yield run

    def _fetch(self, run: dict[int, "Future[Tokens]"]) -> None:
        """Fetch a run of chunks, and let each future know. Never raises: who waits is told."""
        numbers = list(run)
        try:
            fetched = self._encoded(numbers)
        except BaseException as error:
            for future in run.values():
                future.set_exception(error)
            return
        for chunk, future in run.items():
            try:
                future.set_result(self._decoded(chunk, fetched[chunk]))
            except BaseException as error:
                future.set_exception(error)

    def _decoded(self, chunk: int, data: bytes) -> Tokens:
        try:
            return self._checked(chunk, data)
        except BadChunk:
            # An append may have put a longer shard in place of the one whose index we know: look again, once.
            self._forget(chunk // self._geometry.chunks_per_shard)
            return self._checked(chunk, self._encoded([chunk])[chunk])

    def _encoded(self, chunks: list[int]) -> dict[int, bytes]:
        """The bytes of chunks of one shard, read in one request."""
        shard, first = divmod(chunks[0], self._geometry.chunks_per_shard)
        path = self._rules.path(shard)
        try:
            places = self._places(shard, [first + chunk - chunks[0] for chunk in chunks])
            begin = min(offset for offset, _ in places)
            data = path.read_range(begin, max(offset + size for offset, size in places) - begin)
        except FileNotFoundError:
            raise FoundBad(str(path), "missing", REMEDY) from None
        except Unreadable as error:
            raise Unreadable(error.where, f"inner chunk {first} {error.problem}", error.remedy) from None
        pairs = zip(chunks, places, strict=True)
        return {chunk: data[offset - begin : offset - begin + size] for chunk, (offset, size) in pairs}

    def _places(self, shard: int, numbers: list[int]) -> list[tuple[int, int]]:
        """Offset and size in bytes of inner chunks of a shard, whose index is read and checked at first."""
        stride, plain = self._geometry.stride, self._compression == "none"
        with self._index_locks[shard % len(self._index_locks)]:
            index = self._indices.get(shard)
            if index is None and not (plain and self._good[shard]):
                index = self._index(shard)
        if index is None or plain:
            return [(number * stride, stride) for number in numbers]
        return [(int(index[number, 0]), int(index[number, 1])) for number in numbers]

    def _index(self, shard: int) -> Index:
        """Read a shard's last bytes, and check size and index. Raises FoundBad naming it."""
        rules, plain = self._rules, self._compression == "none"
        data, size = rules.path(shard).read_tail(rules.index_bytes)
        if plain:
            rules.check_plain_size(shard, size)
        rules.check_room(shard, size)
        index = rules.index(shard, data)
        if plain:
            rules.check_plain_index(shard, index)
        else:
            rules.check_offsets(shard, index, size)
        with self._lock:
            self._good[shard] = True
            if not plain:
                self._indices[shard] = index
                while len(self._indices) > _MAX_INDICES:
                    self._indices.popitem(last=False)
        return index

    def _forget(self, shard: int) -> None:
        with self._lock:
            self._good[shard] = False
            self._indices.pop(shard, None)

    def _checked(self, chunk: int, data: bytes) -> Tokens:
        """A chunk's tokens. Raises BadChunk naming it if it is damaged."""
        shard, number = divmod(chunk, self._geometry.chunks_per_shard)
        path = self._rules.path(shard)
        if len(data) <= CRC_BYTES or (self._check and crc32c(data[:-CRC_BYTES]) != data[-CRC_BYTES:]):
            raise BadChunk(path, f"inner chunk {number} fails its crc32c", chunk)
        try:
            tokens = decode_chunk(np.frombuffer(data[:-CRC_BYTES], np.uint8), self._geometry.dtype, self._compression)
        except Exception as error:  # numcodecs raises RuntimeError for what zstd refuses
            raise BadChunk(path, f"inner chunk {number} cannot be decompressed ({error})", chunk) from None
        if len(tokens) != self._geometry.chunk:
            raise BadChunk(path, f"inner chunk {number} holds {len(tokens)} tokens", chunk)
        return tokens


def _end(pool: ThreadPoolExecutor, kept: "OrderedDict[int, Future[Tokens]]") -> None:
    pool.shutdown(wait=False, cancel_futures=True)
    for future in list(kept.values()):
        future.cancel()
