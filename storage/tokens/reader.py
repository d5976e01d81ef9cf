"""Reads a token store: shards are mapped, and each inner chunk's crc32c is checked when it is first touched."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...config.errors import FoundBad
from .documents import DocumentIndex, check_size, map_file
from .shards import CRC_BYTES, REMEDY, Bytes, Tokens, crc32c, decode_chunk, read_index
from .store import TOKENIZER, StoreInfo, read_info

_MAPPED_SHARDS = 512
_DECODED_CHUNKS = 64


class TokenStore:
    """One token store, open for reading. May be shared by threads that only read."""

    def __init__(self, path: Path) -> None:
        """See open_store."""
        self.path = path
        self.info: StoreInfo = read_info(path)
        self._check_plan()
        self._index = np.concatenate([self._open_shard(number) for number in range(len(self.info.shards))])
        self._checked = np.zeros(len(self._index), bool)
        self.document_index = DocumentIndex(path, self.info)
        # A map holds a file descriptor, and there may be more shards than a process may open.
        self._map = lru_cache(maxsize=_MAPPED_SHARDS)(map_file)
        self._decoded = lru_cache(maxsize=_DECODED_CHUNKS)(self._decode)

    @property
    def num_tokens(self) -> int:
        return self.info.tokens

    @property
    def num_chunks(self) -> int:
        """Inner chunks in use, in all shards."""
        return len(self._index)

    @property
    def tokenizer_folder(self) -> Path:
        return self.path / TOKENIZER

    def read(self, start: int, stop: int) -> Tokens:
        """Tokens start..stop-1 in the store's dtype. Raises FoundBad naming the shard if a chunk is damaged."""
        if not 0 <= start <= stop <= self.num_tokens:
            raise ValueError(f"tokens {start}..{stop} are not within 0..{self.num_tokens}")
        result = np.empty(stop - start, self.info.numpy_dtype)
        length = self.info.chunk_tokens
        for number in range(start // length, -(-stop // length)):
            base = number * length
            low, high = max(start, base), min(stop, base + length)
            result[low - start : high - start] = self.chunk(number)[low - base : high - base]
        return result

    def chunk(self, number: int) -> Tokens:
        """Tokens of one inner chunk, the last one with its padding."""
        if self.info.compression == "none":
            return decode_chunk(self._data(number), self.info.numpy_dtype, "none")
        return self._decoded(number)

    def samples(self, numbers: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Samples of length+1 tokens, int64 [len(numbers), length+1]; sample i begins at token i*length."""
        result = np.empty((len(numbers), length + 1), np.int64)
        for row, number in enumerate(numbers.tolist()):
            result[row] = self.read(number * length, number * length + length + 1)
        return result

    def starts(self, numbers: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
        """Where documents begin in these samples, bool [len(numbers), length+1]."""
        result = np.zeros((len(numbers), length + 1), bool)
        for row, number in enumerate(numbers.tolist()):
            result[row, self.document_index.within(number * length, number * length + length + 1) - number * length] = 1
        return result

    def _decode(self, number: int) -> Tokens:
        path = self._shard_path(number // self.info.chunks_per_shard)
        try:
            tokens = decode_chunk(self._data(number), self.info.numpy_dtype, self.info.compression)
        except Exception as error:  # numcodecs raises RuntimeError for what zstd refuses
            raise FoundBad(str(path), f"inner chunk {number} cannot be decompressed ({error})", REMEDY) from None
        if len(tokens) != self.info.chunk_tokens:
            raise FoundBad(str(path), f"inner chunk {number} holds {len(tokens)} tokens", REMEDY)
        return tokens

    def _data(self, number: int) -> Bytes:
        """Encoded bytes of an inner chunk without its crc32c, which is checked the first time."""
        path = self._shard_path(number // self.info.chunks_per_shard)
        offset, size = self._index[number].tolist()
        data: Bytes = self._map(path)[offset : offset + size]
        if not self._checked[number]:
            if crc32c(data[:-CRC_BYTES]) != data[-CRC_BYTES:].tobytes():
                place = number % self.info.chunks_per_shard
                raise FoundBad(str(path), f"inner chunk {place} fails its crc32c", REMEDY)
            self._checked[number] = True
        return data[:-CRC_BYTES]

    def _shard_path(self, shard: int) -> Path:
        return self.path / "c" / str(shard)

    def _open_shard(self, number: int) -> NDArray[np.int64]:
        path, info = self._shard_path(number), self.info
        check_size(path, info.shards[number].size_bytes)
        used = -(-info.shards[number].tokens // info.chunk_tokens)
        index = read_index(path, info.chunks_per_shard, used)
        plain_bytes = info.chunk_tokens * info.numpy_dtype.itemsize + CRC_BYTES
        if info.compression == "none" and (index[:, 1] != plain_bytes).any():
            raise FoundBad(str(path), f"an inner chunk is not {plain_bytes} bytes long", REMEDY)
        return index

    def _check_plan(self) -> None:
        info = self.info
        lengths = [shard.tokens for shard in info.shards]
        if sum(lengths) != info.tokens or any(length != info.shard_tokens for length in lengths[:-1]):
            raise FoundBad(str(self.path / "zarr.json"), "its shards do not add up to its tokens", REMEDY)


def open_store(path: Path) -> TokenStore:
    """Open a token store; every shard's size and index are checked at once, its tokens when they are touched.

    Raises UserError if there is no store there, FoundBad naming the file that is missing, truncated or damaged.
    """
    return TokenStore(path)
