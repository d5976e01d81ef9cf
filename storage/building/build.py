"""From text to a token store: built in a folder beside it, renamed at the end, so that a store is whole or absent."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...config.errors import UserError
from ..durable import sync
from ..tokens.inventory import take_inventory, write_inventory
from ..tokens.store import COMPRESSIONS, TOKENIZER, StoreInfo, dtype_for, write_durably, write_info
from ..tokens.tokenizer import StoreTokenizer
from ..tokens.writer import DocumentWriter, TokenWriter
from .build_folder import LOCK, folder_beside
from .build_tokenizer import choose_tokenizer
from .encoding import write_documents
from .inputs.base import TextInput
from .inputs.text import TextFiles
from .sources import Inputs, Selection, open_sources

CHUNK_TOKENS = 1 << 14
SHARD_TOKENS = 1 << 26
SHARD_STEP = 1 << 10

Progress = Callable[[str, int, int], None]
"""Called with the stage, bytes of sources done and bytes in all.

Stages: "read" and "train" (sizes 0: how long it takes is not known) if a tokenizer is trained; "encode".
"""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How a store is made."""

    vocab_size: int | None = None
    """Size of the tokenizer to train; None is tokenizer.VOCAB_SIZE, or the size of one that is given."""
    tokenizer: Path | None = None
    """Hugging Face folder or tokenizer.json to take instead."""
    selection: Selection = field(default_factory=Selection)
    format: str = "auto"
    """One of inputs.kinds.FORMATS, or `auto`: by name and content."""
    field: str | None = None
    """What holds the text in records: a JSON key, a column, an HDF5 dataset; None is `text`."""
    shard_tokens: int = SHARD_TOKENS
    compression: str = "none"

    def check(self) -> None:
        """Raises UserError naming the option at fault."""
        if self.shard_tokens < SHARD_STEP or self.shard_tokens % SHARD_STEP:
            near = max(SHARD_STEP, round(self.shard_tokens / SHARD_STEP) * SHARD_STEP)
            problem = f"{self.shard_tokens} is not a multiple of {SHARD_STEP}"
            raise UserError("--shard-tokens", problem, f"give {near}, for example")
        if self.compression not in COMPRESSIONS:
            raise UserError("--compression", repr(self.compression), f"use one of {', '.join(COMPRESSIONS)}")


@dataclass(frozen=True)
class BuildResult:
    """What was built."""

    info: StoreInfo
    skipped: int
    """Text files that were left out because they are not UTF-8, or hold a NUL."""
    trained: bool
    """Whether the tokenizer was trained here."""


def build_store(sources: Sequence[Path], store: Path, options: BuildOptions, progress: Progress) -> BuildResult:
    """Build the token store `store` (which must not exist) from folders and files of any known format.

    Raises UserError for a bad source, option or tokenizer, or an existing store; OSError with a file name if the
    disk refuses. Either way, and on Ctrl-C, nothing is left; what a killed build leaves, the next one removes.
    """
    options.check()
    _refuse_existing(store)
    inputs = open_sources(sources, options.selection, options.format, options.field)
    with folder_beside(store) as folder:
        tokenizer = choose_tokenizer(inputs, options.tokenizer, options.vocab_size, progress)
        info = _write(folder, inputs, tokenizer, options, progress)
        _refuse_existing(store)
        (folder / LOCK).unlink(missing_ok=True)
        os.rename(folder, store)
        sync(store.parent)
    skipped = sum(len(each.skipped) for each in inputs if isinstance(each, TextFiles))
    trained = options.tokenizer is None and all(isinstance(each, TextInput) for each in inputs)
    return BuildResult(info, skipped, trained)


def _write(
    folder: Path, inputs: Inputs, tokenizer: StoreTokenizer, options: BuildOptions, progress: Progress
) -> StoreInfo:
    (folder / TOKENIZER).mkdir()
    for name, text in tokenizer.files.items():
        write_durably(folder / TOKENIZER / name, text.encode())
    vocab_size = tokenizer.vocab_size
    chunk = math.gcd(options.shard_tokens, CHUNK_TOKENS)
    tokens = TokenWriter(folder, vocab_size, chunk, options.shard_tokens, options.compression)
    documents = DocumentWriter(folder)
    try:
        passed = _counted(inputs, progress)
        write_documents(inputs, tokenizer, (tokens, documents), passed)
        passed(sum(each.size_bytes for each in inputs))
        tokens.finish()
    finally:
        tokens.close()
    if not documents.documents:
        raise _no_document(inputs)
    document_chunk = documents.finish()
    names = [f"{TOKENIZER}/{name}" for name in tokenizer.files] + documents.files
    inventory = take_inventory(folder, tuple(tokens.shards), names)
    inventory_bytes, inventory_sha256 = write_inventory(folder, inventory)
    info = StoreInfo(
        tokens=tokens.tokens,
        documents=documents.documents,
        dtype=dtype_for(vocab_size),
        vocab_size=vocab_size,
        tokenizer_fingerprint=tokenizer.fingerprint(),
        end_of_document=tokenizer.end_of_document,
        chunk_tokens=chunk,
        shard_tokens=options.shard_tokens,
        document_chunk=document_chunk,
        compression=options.compression,
        generation=1,
        size_bytes=inventory.size_bytes,
        inventory_bytes=inventory_bytes,
        inventory_sha256=inventory_sha256,
    )
    write_info(folder, info)
    return info


def _counted(inputs: Inputs, progress: Progress) -> Callable[[int], None]:
    """Adds up the bytes that were passed, at most all that there are, and shows them."""
    done, total = 0, sum(each.size_bytes for each in inputs)

    def passed(size: int) -> None:
        nonlocal done
        done = min(total, done + size)
        progress("encode", done, total)

    return passed


def _no_document(inputs: Inputs) -> UserError:
    files = [file for each in inputs if isinstance(each, TextFiles) for file in each.files]
    if files:
        return UserError("SOURCE", f"none of {len(files)} files is UTF-8 text", "give text files")
    return UserError("SOURCE", "holds no document", "give sources with documents")


def _refuse_existing(store: Path) -> None:
    if os.path.lexists(store):
        raise UserError(f"STORE {store}", "exists already", "give another name, or remove it first")
