"""The layout of a store, decided when all parts are known: which documents are kept, and so where each shard begins."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tokens.index_writer import INDEX_SHARD
from ..tokens.reader import TokenStore, open_store
from ..tokens.writer import DocumentWriter
from .deduplication import find_duplicates
from .known import KNOWN
from .part_files import PartDamaged, PartFile, read_summary
from .plan import Plan
from .workspace import Workspace, plan_digest, read_record, write_record, write_whole

_READ_TOKENS = 1 << 20


@dataclass(frozen=True)
class Layout:
    """What layout.json holds."""

    kept_tokens: tuple[int, ...]
    """Per part."""
    documents: int
    document_files: tuple[str, ...]
    """Files of the document index, by path in the store."""
    exact: int
    near: int
    """Documents that were dropped as equal, and as nearly equal, to earlier ones."""
    skipped: int
    first_token: int = 0
    """Tokens of the store that is added to."""

    @property
    def tokens(self) -> int:
        """Tokens of the whole store."""
        return self.first_token + sum(self.kept_tokens)

    def shards(self, shard_tokens: int) -> range:
        """Shards that are written; the first of them may begin with tokens that are there already."""
        return range(self.first_token // shard_tokens, -(-self.tokens // shard_tokens))

    def span(self, shard: int, shard_tokens: int) -> tuple[int, int]:
        """Which of the parts' tokens are in a shard, first and one after the last."""
        start, stop = shard * shard_tokens, min((shard + 1) * shard_tokens, self.tokens)
        return max(0, start - self.first_token), stop - self.first_token

    def parts_of(self, shard: int, shard_tokens: int) -> list[int]:
        """Parts that hold tokens of a shard."""
        ends = np.cumsum(self.kept_tokens)
        start, stop = self.span(shard, shard_tokens)
        first, last = int(np.searchsorted(ends, start, "right")), int(np.searchsorted(ends, stop, "left"))
        return [number for number in range(first, last + 1) if self.kept_tokens[number]]


def decide_layout(space: Workspace, plan: Plan) -> Layout:
    """Drop duplicates, write the document index, and publish layout.json. Raises PartDamaged."""
    digest = plan_digest(space)
    parts = [_open(space, number, digest) for number in range(len(plan.parts))]
    options = plan.options
    num_known = sum(part.kind == KNOWN for part in plan.parts)
    dropped = find_duplicates(parts, options["deduplicate"], options["near_threshold"], num_known)
    writer, first_token = _document_writer(space, plan)
    kept_tokens: list[int] = []
    for part, mask in zip(parts, dropped.masks, strict=True):
        lengths = part.section("lengths")
        kept = lengths[~mask].astype(np.uint64)
        starts = np.cumsum(kept, dtype=np.uint64) - kept + np.uint64(first_token + sum(kept_tokens))
        writer.append(starts)
        kept_tokens.append(int(kept.sum()))
        _write_mask(space, part.number, mask)
    if writer.documents:
        writer.finish()
    skipped = sum(part.summary["skipped"] for part in parts)
    layout = Layout(
        tuple(kept_tokens),
        writer.documents,
        tuple(writer.files),
        dropped.exact,
        dropped.near,
        skipped,
        first_token,
    )
    write_record(space.layout, {**layout.__dict__, "plan": digest})
    return layout


def read_layout(space: Workspace) -> Layout | None:
    """The layout that was decided for this plan, or None."""
    record = read_record(space.layout)
    if record is None or record.pop("plan") != plan_digest(space):
        return None
    files = tuple(record.pop("document_files"))
    return Layout(tuple(record.pop("kept_tokens")), document_files=files, **record)


def _document_writer(space: Workspace, plan: Plan) -> tuple[DocumentWriter, int]:
    """A writer that goes on after the documents which are there, and the tokens which are.

    Its last shard is written anew with the same beginning.
    """
    if plan.origin is None:
        return DocumentWriter(space.store), 0
    index = open_store(Path(plan.origin.store)).document_index
    whole = plan.origin.documents // INDEX_SHARD
    writer = DocumentWriter(space.store, whole)
    writer.append(index.get(whole * INDEX_SHARD, plan.origin.documents))
    return writer, plan.origin.tokens


def shard_blocks(space: Workspace, plan: Plan, layout: Layout, shard: int) -> Iterator[NDArray[Any]]:
    """Consecutive blocks of a shard's tokens, out of the store that is added to and the parts. Raises PartDamaged."""
    for source, start, stop in _ranges(space, plan, layout, shard):
        yield source.read(start, stop) if isinstance(source, TokenStore) else source.tokens(start, stop)


def mask_blocks(space: Workspace, plan: Plan, layout: Layout, shard: int) -> Iterator[NDArray[Any]]:
    """The same of the shard's loss mask."""
    for source, start, stop in _ranges(space, plan, layout, shard):
        if isinstance(source, PartFile):
            yield source.trained(start, stop)
        else:
            assert source.loss_mask is not None
            yield source.loss_mask.read(start, stop)


def _ranges(
    space: Workspace, plan: Plan, layout: Layout, shard: int
) -> Iterator[tuple[TokenStore | PartFile, int, int]]:
    shard_tokens = plan.options["shard_tokens"]
    if plan.origin is not None:
        store = open_store(Path(plan.origin.store))
        for place in range(shard * shard_tokens, plan.origin.tokens, _READ_TOKENS):
            yield store, place, min(place + _READ_TOKENS, plan.origin.tokens)
    start, stop = layout.span(shard, shard_tokens)
    digest = plan_digest(space)
    for number in layout.parts_of(shard, shard_tokens):
        base = sum(layout.kept_tokens[:number])
        part = _open(space, number, digest)
        for first, last in _kept_ranges(space, part, max(0, start - base), stop - base):
            for place in range(first, last, _READ_TOKENS):
                yield part, place, min(place + _READ_TOKENS, last)


def _open(space: Workspace, number: int, digest: str) -> PartFile:
    summary = read_summary(space, number, digest)
    if summary is None:
        raise PartDamaged(number)
    return PartFile(space, number, summary)


def _kept_ranges(space: Workspace, part: PartFile, start: int, stop: int) -> list[tuple[int, int]]:
    """Ranges of the part's tokens that are kept tokens start..stop-1 of it."""
    mask = _read_mask(space, part)
    if mask is None:
        return [(start, min(stop, part.summary["tokens"]))]
    lengths = part.section("lengths").astype(np.int64)
    ends = np.cumsum(lengths)
    # A run of kept documents begins or ends where the mask changes.
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=1, append=1))
    ranges, done = [], 0
    for first, last in edges.reshape(-1, 2).tolist():
        low, high = int(ends[first] - lengths[first]), int(ends[last - 1])
        skip, take = max(0, start - done), min(high - low, stop - done)
        if skip < take:
            ranges.append((low + skip, low + take))
        done += high - low
    return ranges


def _write_mask(space: Workspace, number: int, mask: NDArray[np.bool_]) -> None:
    path = space.dropped(number)
    if not mask.any():
        path.unlink(missing_ok=True)
        return
    write_whole(path, np.packbits(mask).tobytes())


def _read_mask(space: Workspace, part: PartFile) -> NDArray[np.bool_] | None:
    try:
        bits = np.frombuffer(space.dropped(part.number).read_bytes(), np.uint8)
    except FileNotFoundError:
        return None
    return np.unpackbits(bits, count=part.summary["documents"]).astype(bool)
