"""A token store as one HDF5 file: `trainwright data export`; docs/token-store.md describes the layout."""

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..config.errors import UserError
from .durable import sync
from .inputs.hdf5 import CHUNK, DOCUMENTS, FORMAT, FORMAT_VERSION, SHA256, TOKENIZER, TOKENS
from .reader import TokenStore, open_store
from .shards import fill_value
from .store import StoreInfo
from .tokenizer import open_tokenizer

Progress = Callable[[int, int], None]
"""Called with the bytes of tokens written and the bytes in all."""


def export_hdf5(path: Path, target: Path, progress: Progress) -> StoreInfo:
    """Write the token store `path` to the new HDF5 file `target`, beside its place first, and rename it.

    Raises UserError if there is no store or `target` exists, FoundBad naming a damaged file of the store, OSError with
    the file's name if the disk refuses; then nothing is left.
    """
    store = open_store(path)
    if os.path.lexists(target):
        raise UserError(f"FILE {target}", "exists already", "give another name, or remove it first")
    if not target.parent.is_dir():
        raise UserError(f"FILE {target}", f"{target.parent} is not a folder", "give a file in a folder that exists")
    beside = target.with_name(f".{target.name}.tmp")
    try:
        with _refusals(beside):
            _write(store, beside, progress)
        sync(beside)
        os.rename(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync(target.parent)
    return store.info


def _write(store: TokenStore, beside: Path, progress: Progress) -> None:
    import h5py

    info = store.info
    # The newer form of metadata has checksums, and HDF5 1.10 (of 2016) reads it.
    with h5py.File(beside, "w", libver=("v110", "v110"), locking=False) as file:
        file.attrs.update(
            {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "num_tokens": info.tokens,
                "num_documents": info.documents,
                "vocab_size": info.vocab_size,
                "end_of_document": info.end_of_document,
                "tokenizer_fingerprint": info.tokenizer_fingerprint,
            }
        )
        for name, text in open_tokenizer(store.path).files.items():
            dataset = file.create_dataset(f"{TOKENIZER}/{name}", data=text, dtype=h5py.string_dtype("utf-8"))
            dataset.attrs[SHA256] = hashlib.sha256(text.encode()).hexdigest()
        documents = _dataset(file, DOCUMENTS, info.documents, np.dtype("<u8"))
        place = 0
        for number in range(store.document_index.num_chunks):
            starts = store.document_index.chunk(number)
            documents[place : place + len(starts)] = starts
            place += len(starts)
        tokens = _dataset(file, TOKENS, info.tokens, info.numpy_dtype.newbyteorder("<"))
        for start in range(0, info.tokens, CHUNK):
            stop = min(start + CHUNK, info.tokens)
            tokens[start:stop] = store.read(start, stop)
            progress(stop * tokens.dtype.itemsize, info.tokens * tokens.dtype.itemsize)


def _dataset(file: Any, name: str, length: int, dtype: np.dtype[Any]) -> Any:
    chunks = (min(CHUNK, length),)
    return file.create_dataset(
        name, (length,), dtype, chunks=chunks, fletcher32=True, fillvalue=fill_value(dtype.newbyteorder("="))
    )


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Gives what libhdf5 says of the operating system's refusals their number and file name back."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        found = re.search(r"errno = (\d+)", str(error))
        number = int(found[1]) if found else getattr(error, "errno", None)
        if number is None or number not in errno.errorcode:
            raise
        raise OSError(number, os.strerror(number), str(path)) from None
