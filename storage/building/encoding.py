"""From documents to the arrays of a token store: texts are tokenized in batches, token ids are checked and copied."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ...config.errors import UserError
from ..tokens.store import dtype_for
from ..tokens.tokenizer import StoreTokenizer
from ..tokens.writer import DocumentWriter, TokenWriter
from .inputs.base import Sized, TextInput, TokenInput

_BATCH_CHARACTERS = 4 << 20
_BATCH_DOCUMENTS = 512

Writers = tuple[TokenWriter, DocumentWriter]
Passed = Callable[[int], None]
"""Called with the bytes of sources that were done since the call before."""


def write_documents(
    inputs: Sequence[TextInput | TokenInput], tokenizer: StoreTokenizer, writers: Writers, passed: Passed
) -> None:
    """Write all documents in order, each with one end-of-document token after it.

    Raises UserError naming file and place of what is damaged, no text, or no token of this tokenizer.
    """
    for each in inputs:
        if isinstance(each, TextInput):
            _encode(each, tokenizer, writers, passed)
        else:
            _copy(each, tokenizer, writers, passed)


def _encode(texts: TextInput, tokenizer: StoreTokenizer, writers: Writers, passed: Passed) -> None:
    tokens, documents = writers
    dtype, end = dtype_for(tokenizer.vocab_size), tokenizer.end_of_document
    for batch in _batches(texts):
        for ids in tokenizer.encode([text for text, _ in batch]):
            documents.append(tokens.tokens)
            tokens.append(np.array([*ids, end], dtype))
        passed(sum(size for _, size in batch))


def _batches(texts: TextInput) -> Iterator[list[Sized]]:
    batch: list[Sized] = []
    length = 0
    for text in texts.texts():
        batch.append(text)
        length += len(text[0])
        if length >= _BATCH_CHARACTERS or len(batch) == _BATCH_DOCUMENTS:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def _copy(source: TokenInput, tokenizer: StoreTokenizer, writers: Writers, passed: Passed) -> None:
    tokens, documents = writers
    dtype, end, vocab_size = dtype_for(tokenizer.vocab_size), tokenizer.end_of_document, tokenizer.vocab_size
    number, begins, last_id, waiting = 0, True, -1, 0
    for piece in source.pieces():
        if begins:
            documents.append(tokens.tokens)
            last_id = -1
        if len(piece.tokens):
            wrong = piece.tokens[(piece.tokens < 0) | (piece.tokens >= vocab_size)]
            if len(wrong):
                problem = f"document {number}: token id {wrong[0]} is not one of the tokenizer's {vocab_size}"
                raise UserError(f"SOURCE {source.path}", problem, "give the tokenizer that made the ids: --tokenizer")
            tokens.append(piece.tokens.astype(dtype))
            last_id = int(piece.tokens[-1])
        if piece.last and last_id != end:
            tokens.append(np.array([end], dtype))
        number, begins = number + piece.last, piece.last
        waiting += piece.size_bytes
        if waiting >= _BATCH_CHARACTERS:
            passed(waiting)
            waiting = 0
    passed(waiting)
