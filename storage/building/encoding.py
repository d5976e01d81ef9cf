"""From a part's documents to its file: texts are tokenized in batches, token ids are checked and copied."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...config.errors import UserError
from ..tokens.store import dtype_for
from ..tokens.tokenizer import StoreTokenizer
from ..tokens.word_cache import word_cache_for
from .deduplication import hasher_for
from .inputs.base import Piece, Sized, bad
from .known import KNOWN, read_known
from .part_files import PartWriter
from .parts import Part, holds_text, part_pieces, part_texts
from .plan import Plan
from .workspace import Workspace

if TYPE_CHECKING:
    from .chat_encoding import ChatEncoder

_BATCH_CHARACTERS = 4 << 20
_BATCH_DOCUMENTS = 512
_THREADS_WORTH_A_CACHE = 4  # our cache is about as fast as four threads of the library

Passed = Callable[[int], None]
"""Called with the bytes of sources that were done since the call before."""


class TextEncoder:
    """A tokenizer for texts, which keeps the words that it has seen."""

    def __init__(self, tokenizer: StoreTokenizer, threads: int) -> None:
        """`threads` is how many the tokenizers library may use; with many of them it is faster than one of ours."""
        self._tokenizer, self._dtype = tokenizer, dtype_for(tokenizer.vocab_size)
        many = threads > _THREADS_WORTH_A_CACHE
        self._words = None if many else word_cache_for(tokenizer.tokenizer, self._dtype)
        self.end = np.array([tokenizer.end_of_document], self._dtype)

    def encode(self, texts: list[str]) -> list[NDArray[Any]]:
        """Token ids of each text, in the store's dtype."""
        if self._words is not None:
            return self._words.encode(texts)
        return [np.array(ids, self._dtype) for ids in self._tokenizer.encode(texts)]


def encode_part(
    space: Workspace, plan: Plan, number: int, encoder: "TextEncoder | ChatEncoder", passed: Passed
) -> dict[str, Any]:
    """Make one part, each of its documents with one end-of-document token after it; its summary.

    Raises UserError naming file and place of what is damaged, no text, or no token of this tokenizer, and the file
    that is not as it was planned.
    """
    part = plan.parts[number]
    _check_unchanged(part, plan)
    dtype, hasher = np.dtype(dtype_for(plan.vocabulary.size)), hasher_for(plan.options)
    writer = PartWriter(space, number, dtype, hasher, keep_tokens=part.kind != KNOWN)
    skipped: set[str] = set()
    try:
        if part.kind == KNOWN:
            assert plan.origin is not None
            read_known(part, plan.origin, writer, passed)
        elif not isinstance(encoder, TextEncoder):
            _encode_chats(part_texts(part, skipped), encoder, writer, passed)
        elif holds_text(part):
            _encode(part_texts(part, skipped), encoder, writer, passed)
        else:
            _copy(part, plan, writer, passed)
        _check_unchanged(part, plan)
        return writer.publish(len(skipped))
    finally:
        writer.close()


def _check_unchanged(part: Part, plan: Plan) -> None:
    if part.kind == KNOWN:  # the folder beside the store is locked, and a generation never changes
        return
    names = [each.path for each in part.slices]
    for name in [*names, *(f"{name[:-4]}.idx" for name in names if part.kind == "megatron")]:
        try:
            about = os.stat(name)
        except FileNotFoundError:
            raise bad(name, "vanished while it was read", "build again") from None
        if plan.sizes[name] != (about.st_size, about.st_mtime_ns):
            raise bad(name, "changed while the store was built", "build again")


def _encode(texts: Iterable[Sized], encoder: TextEncoder, writer: PartWriter, passed: Passed) -> None:
    for batch in _batches(texts):
        for ids in encoder.encode([text for text, _ in batch]):
            writer.add(ids)
            writer.add(encoder.end)
            writer.end_document()
        passed(sum(size for _, size in batch))


def _encode_chats(chats: Iterable[Sized], encoder: "ChatEncoder", writer: PartWriter, passed: Passed) -> None:
    """The token after a document is one of the store's own, and not trained, unless the chat ends with it."""
    for batch in _batches(chats):
        for ids, trained in encoder.encode([line for line, _ in batch]):
            writer.add(ids, trained)
            if not len(ids) or ids[-1] != encoder.end[0]:
                writer.add(encoder.end, np.zeros(1, np.uint8))
            writer.end_document()
        passed(sum(size for _, size in batch))


def _batches(texts: Iterable[Sized]) -> Iterator[list[Sized]]:
    batch: list[Sized] = []
    length = 0
    for text in texts:
        batch.append(text)
        length += len(text[0])
        if length >= _BATCH_CHARACTERS or len(batch) == _BATCH_DOCUMENTS:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def _copy(part: Part, plan: Plan, writer: PartWriter, passed: Passed) -> None:
    end, vocab_size = plan.vocabulary.end_of_document, plan.vocabulary.size
    dtype = dtype_for(vocab_size)
    number, last_id, waiting = part.slices[0].start, -1, 0
    for piece in part_pieces(part, plan.vocabulary):
        if len(piece.tokens):
            _check_ids(piece, (part.slices[0].path, number), vocab_size)
            writer.add(piece.tokens.astype(dtype), piece.trained)
            last_id = int(piece.tokens[-1])
        if piece.last:
            if last_id != end:
                writer.add(np.array([end], dtype), None if piece.trained is None else np.zeros(1, np.uint8))
            writer.end_document()
            number, last_id = number + 1, -1
        waiting += piece.size_bytes
        if waiting >= _BATCH_CHARACTERS:
            passed(waiting)
            waiting = 0
    passed(waiting)


def _check_ids(piece: Piece, where: tuple[str, int], vocab_size: int) -> None:
    wrong = piece.tokens[(piece.tokens < 0) | (piece.tokens >= vocab_size)]
    if len(wrong):
        path, number = where
        problem = f"document {number}: token id {wrong[0]} is not one of the tokenizer's {vocab_size}"
        raise UserError(f"SOURCE {path}", problem, "give the tokenizer that made the ids: --tokenizer")
