"""Compressed shards: chunks are decoded once, ahead of time if told, and kept while they may be wanted again."""

import os
import threading
import weakref
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .shard_files import ShardFiles, read_exactly
from .shards import CRC_BYTES, BadChunk, Index, Tokens, crc32c, decode_chunk
from .store import StoreInfo
from .wanted import Wanted

_MAX_OPEN = 256
_DECODERS = 2  # threads; zstd gives the interpreter's lock back


class CompressedShards:
    """Gathers tokens out of decoded chunks; as ShardMap, which see, but for how."""

    def __init__(self, store: Path, info: StoreInfo, max_decoded: int, check: bool = True) -> None:
        """At most `max_decoded` decoded chunks are kept; those used last stay."""
        self._files, self._info, self._check = ShardFiles(store, info.geometry), info, check
        self._max_decoded = max_decoded
        self._open: OrderedDict[int, tuple[int, Index]] = OrderedDict()
        self._decoded: OrderedDict[int, Future[Tokens]] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
        self._closer = weakref.finalize(self, _close_all, self._open, self._pool)

    def fill(self, wanted: Wanted, out: NDArray[Any]) -> None:
        """See ShardMap.fill."""
        flat = out.reshape(-1)
        self.will_need(wanted, out)
        for chunk, offset, to, count in wanted.by_chunk(out, self._info.tokens, self._info.chunk_tokens):
            flat[to : to + count] = self._wanted(chunk).result()[offset : offset + count]

    peek = fill

    def will_need(self, wanted: Wanted, out: NDArray[Any]) -> None:
        """Begin to decode what `fill` is soon called with, in ascending order, as far as there is room to keep it."""
        parts = wanted.by_chunk(out, self._info.tokens, self._info.chunk_tokens)
        for chunk in sorted({chunk for chunk, *_ in parts})[: self._max_decoded]:
            self._wanted(chunk)

    def close(self) -> None:
        """Close all files and end the threads."""
        _close_all(self._open, self._pool)

    def _wanted(self, chunk: int) -> "Future[Tokens]":
        with self._lock:
            future = self._decoded.get(chunk)
            if future is None or (future.done() and future.exception()):
                future = self._decoded[chunk] = self._pool.submit(self._decode, chunk)
            self._decoded.move_to_end(chunk)
            while len(self._decoded) > self._max_decoded:
                self._decoded.popitem(last=False)
            return future

    def _decode(self, chunk: int) -> Tokens:
        info = self._info
        shard, number = divmod(chunk, info.chunks_per_shard)
        path = str(self._files.path(shard))
        data = self._encoded(shard, number, path)
        if self._check and crc32c(data[:-CRC_BYTES]) != data[-CRC_BYTES:]:
            raise BadChunk(Path(path), f"inner chunk {number} fails its crc32c", chunk)
        try:
            tokens = decode_chunk(np.frombuffer(data[:-CRC_BYTES], np.uint8), info.numpy_dtype, info.compression)
        except Exception as error:  # numcodecs raises RuntimeError for what zstd refuses
            raise BadChunk(Path(path), f"inner chunk {number} cannot be decompressed ({error})", chunk) from None
        if len(tokens) != info.chunk_tokens:
            raise BadChunk(Path(path), f"inner chunk {number} holds {len(tokens)} tokens", chunk)
        return tokens

    def _encoded(self, shard: int, number: int, path: str) -> bytes:
        with self._lock:  # no file is closed while another thread reads it
            opened = self._open.get(shard)
            if opened is None:
                while len(self._open) >= _MAX_OPEN:
                    os.close(self._open.popitem(last=False)[1][0])
                opened = self._open[shard] = self._files.open_indexed(shard)
            self._open.move_to_end(shard)
            descriptor, index = opened
            return read_exactly(descriptor, int(index[number, 1]), int(index[number, 0]), path)


def _close_all(opened: OrderedDict[int, tuple[int, Index]], pool: ThreadPoolExecutor) -> None:
    pool.shutdown(wait=False, cancel_futures=True)
    while opened:
        os.close(opened.popitem()[1][0])
