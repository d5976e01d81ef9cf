"""From text to a token store: built in a folder beside it, renamed at the end, so that a store is whole or absent."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..config.errors import UserError
from .build_folder import LOCK, folder_beside
from .durable import sync
from .sources import Selection, TextFiles, list_files
from .store import COMPRESSIONS, TOKENIZER, StoreInfo, dtype_for, with_files, write_durably, write_info
from .tokenizer import StoreTokenizer, take_tokenizer, train_tokenizer
from .writer import DocumentWriter, TokenWriter

CHUNK_TOKENS = 1 << 14
SHARD_TOKENS = 1 << 26
SHARD_STEP = 1 << 10
VOCAB_SIZE = 32768
_BATCH_BYTES = 4 << 20
_BATCH_DOCUMENTS = 512

Progress = Callable[[str, int, int], None]
"""Called with the stage, bytes of text done and bytes in all.

Stages: "read" and "train" (sizes 0: how long it takes is not known) if a tokenizer is trained; "encode".
"""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How a store is made."""

    vocab_size: int = VOCAB_SIZE
    """Size of the tokenizer to train, unless one is given."""
    tokenizer: Path | None = None
    """Hugging Face folder or tokenizer.json to take instead."""
    selection: Selection = field(default_factory=Selection)
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
    """What was built, and how many files were left out because they are not UTF-8 text."""

    info: StoreInfo
    skipped: int


def build_store(sources: Sequence[Path], store: Path, options: BuildOptions, progress: Progress) -> BuildResult:
    """Build the token store `store` (which must not exist) from folders and text files.

    Raises UserError for a bad source, option or tokenizer, or an existing store; OSError with a file name if the
    disk refuses. Either way, and on Ctrl-C, nothing is left; what a killed build leaves, the next one removes.
    """
    options.check()
    _refuse_existing(store)
    texts = list_files(sources, options.selection)
    with folder_beside(store) as folder:
        tokenizer = _tokenizer(texts, options, progress)
        info = _write(folder, texts, tokenizer, options, progress)
        _refuse_existing(store)
        (folder / LOCK).unlink(missing_ok=True)
        os.rename(folder, store)
        sync(store.parent)
    return BuildResult(info, len(texts.skipped))


def _write(
    folder: Path, texts: TextFiles, tokenizer: StoreTokenizer, options: BuildOptions, progress: Progress
) -> StoreInfo:
    (folder / TOKENIZER).mkdir()
    for name, text in tokenizer.files.items():
        write_durably(folder / TOKENIZER / name, text.encode())
    vocab_size = tokenizer.vocab_size
    chunk = math.gcd(options.shard_tokens, CHUNK_TOKENS)
    tokens = TokenWriter(folder, vocab_size, chunk, options.shard_tokens, options.compression)
    documents = DocumentWriter(folder)
    try:
        _encode(texts, tokenizer, (tokens, documents), progress)
        tokens.finish()
    finally:
        tokens.close()
    if not documents.documents:
        raise UserError("SOURCE", f"none of {len(texts.files)} files is UTF-8 text", "give text files")
    document_chunk = documents.finish()
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
        shards=tuple(tokens.shards),
        files={},
    )
    names = [f"{TOKENIZER}/{name}" for name in tokenizer.files] + documents.files
    info = with_files(info, folder, names)
    write_info(folder, info)
    return info


def _tokenizer(texts: TextFiles, options: BuildOptions, progress: Progress) -> StoreTokenizer:
    if options.tokenizer is not None:
        return take_tokenizer(options.tokenizer)
    part = texts.training_part()

    def watched() -> Iterator[str]:
        done = 0
        for text, size in part.texts():
            yield text
            done += size
            progress("read", done, part.size_bytes)
        progress("train", 0, 0)

    return train_tokenizer(watched(), options.vocab_size)


def _encode(
    texts: TextFiles, tokenizer: StoreTokenizer, writers: tuple[TokenWriter, DocumentWriter], progress: Progress
) -> None:
    tokens, documents = writers
    dtype, end, done = dtype_for(tokenizer.vocab_size), tokenizer.end_of_document, 0
    for batch in _batches(texts):
        for ids in tokenizer.encode([text for text, _ in batch]):
            documents.append(tokens.tokens)
            tokens.append(np.array([*ids, end], dtype))
        done += sum(size for _, size in batch)
        progress("encode", done, texts.size_bytes)
    progress("encode", texts.size_bytes, texts.size_bytes)


def _batches(texts: TextFiles) -> Iterator[list[tuple[str, int]]]:
    batch: list[tuple[str, int]] = []
    size = 0
    for text in texts.texts():
        batch.append(text)
        size += text[1]
        if size >= _BATCH_BYTES or len(batch) == _BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _refuse_existing(store: Path) -> None:
    if os.path.lexists(store):
        raise UserError(f"STORE {store}", "exists already", "give another name, or remove it first")
