"""A token store as one HDF5 file: `trainwright data export`; docs/token-store.md describes the layout."""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...config.errors import UserError
from ..durable import sync
from . import hdf5_layout as layout
from .locations import Location
from .reader import TokenStore, open_store
from .shards import fill_value
from .store import StoreInfo
from .tokenizer import open_tokenizer

Progress = Callable[[int, int], None]
"""Called with the bytes of tokens written and the bytes in all."""


def export_hdf5(path: Location, target: Path, progress: Progress) -> StoreInfo:
    """Write the token store `path` to the new HDF5 file `target`, beside its place first, and rename it.

    Raises UserError if there is no store or `target` exists, FoundBad naming a damaged file of the store, OSError with
    the file's name if the disk refuses; then nothing is left.
    """
    import h5py

    store = open_store(path)
    if os.path.lexists(target):
        raise UserError(f"FILE {target}", "exists already", "give another name, or remove it first")
    if not target.parent.is_dir():
        raise UserError(f"FILE {target}", f"{target.parent} is not a folder", "give a file in a folder that exists")
    beside = target.with_name(f".{target.name}.tmp")
    try:
        with _Output(beside) as output:
            # The newer form of metadata has checksums, and HDF5 1.10 (of 2016) reads it.
            with h5py.File(output, "w", libver=("v110", "v110")) as file:
                _write_head(store, file)
                _write_documents(store, file, output)
                _write_tokens(store, file, output, progress)
                _write_mask(store, file, output)
            output.check()
        sync(beside)
        os.rename(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync(target.parent)
    return store.info


def _write_head(store: TokenStore, file: Any) -> None:
    import h5py

    info = store.info
    about = {
        "format": layout.FORMAT,
        "format_version": layout.FORMAT_VERSION if store.loss_mask is None else layout.MASKED_VERSION,
        "num_tokens": info.tokens,
        "num_documents": info.documents,
        "vocab_size": info.vocab_size,
        "end_of_document": info.end_of_document,
        "tokenizer_fingerprint": info.tokenizer_fingerprint,
    }
    file.attrs.update(about)
    for name, text in open_tokenizer(store.path).files.items():
        dataset = file.create_dataset(f"{layout.TOKENIZER}/{name}", data=text, dtype=h5py.string_dtype("utf-8"))
        dataset.attrs[layout.SHA256] = hashlib.sha256(text.encode()).hexdigest()


def _write_documents(store: TokenStore, file: Any, output: "_Output") -> None:
    dataset = _dataset(file, layout.DOCUMENTS, store.info.documents, np.dtype("<u8"))
    place = 0
    for number in range(store.document_index.num_chunks):
        starts = store.document_index.chunk(number)
        dataset[place : place + len(starts)] = starts
        place += len(starts)
        output.check()


def _write_tokens(store: TokenStore, file: Any, output: "_Output", progress: Progress) -> None:
    dtype, total = store.info.numpy_dtype, store.num_tokens
    dataset = _dataset(file, layout.TOKENS, total, dtype.newbyteorder("<"))
    for start in range(0, total, layout.CHUNK):
        stop = min(start + layout.CHUNK, total)
        dataset[start:stop] = store.read(start, stop)
        output.check()
        progress(stop * dtype.itemsize, total * dtype.itemsize)


def _write_mask(store: TokenStore, file: Any, output: "_Output") -> None:
    if store.loss_mask is None:
        return
    dataset = _dataset(file, layout.LOSS_MASK, store.num_tokens, np.dtype(np.uint8))
    for start in range(0, store.num_tokens, layout.CHUNK):
        stop = min(start + layout.CHUNK, store.num_tokens)
        dataset[start:stop] = store.loss_mask.read(start, stop)
        output.check()


def _dataset(file: Any, name: str, length: int, dtype: np.dtype[Any]) -> Any:
    fill = fill_value(dtype)
    return file.create_dataset(
        name, (length,), dtype, chunks=(min(layout.CHUNK, length),), fletcher32=True, fillvalue=fill
    )


class _Output(io.RawIOBase):
    """The file that libhdf5 writes to. It never hears of a full disk or of Ctrl-C: it crashes where a write fails."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._path = str(path)
        self._error: BaseException | None = None

    def check(self) -> None:
        """Raises what was kept from libhdf5, if anything was; the file is useless then."""
        if isinstance(self._error, OSError):
            self._error.filename = self._path
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        """Write all bytes, or keep the error and say that they were."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left and self._error is None:
                left = left[self._file.write(left) :]
        except BaseException as error:
            self._error = error
        return size

    def readinto(self, buffer: Any) -> int:
        """Fill the whole buffer; what was never written is zero."""
        size = self._file.readinto(buffer)
        buffer[size:] = bytes(len(buffer) - size)
        return len(buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def truncate(self, size: int | None = None) -> int:
        """Set the file's length, or keep the error."""
        try:
            return self._file.truncate(size)
        except BaseException as error:
            self._error = error
        return size or 0

    def close(self) -> None:
        self._file.close()
        super().close()
