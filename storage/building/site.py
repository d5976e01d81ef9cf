"""What a worker does at a building folder: make a part, write a shard, check one; told and answered as JSON."""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config.errors import FoundBad, UserError
from ..tokens.framing import ShardShape
from ..tokens.locations import file_digest
from ..tokens.loss_mask import mask_shape
from ..tokens.shards import ShardSummary
from ..tokens.store import LOSS_MASK, dtype_for
from ..tokens.tokenizer import take_tokenizer
from ..tokens.writer import write_shard
from .encoding import TextEncoder, encode_part
from .layout import Layout, mask_blocks, read_layout, shard_blocks
from .part_files import PartDamaged
from .plan import Plan, chunk_tokens, read_plan
from .workspace import Workspace, plan_digest, read_record, write_record

if TYPE_CHECKING:
    from .chat_encoding import ChatEncoder

Task = tuple[str, int]
"""What to do (`part`, `shard` or `check`), and the part's or shard's number."""
Passed = Callable[[int], None]


class Site:
    """A building folder as one worker sees it."""

    def __init__(self, space: Workspace, threads: int = 1) -> None:
        """`threads` is how many the tokenizers library may use."""
        self.space, self._threads = space, threads
        plan = read_plan(space)
        assert plan is not None, f"{space.plan} is missing"
        self.plan: Plan = plan

    def do(self, task: Task, passed: Passed) -> dict[str, Any]:
        """Do one task. Raises UserError, OSError, or PartDamaged where a part that is needed must be made again."""
        what, number = task
        if what == "part":
            return encode_part(self.space, self.plan, number, self._encoder, passed)
        if what == "check":
            return {"whole": is_whole(self.space, number)}
        return self._write_shard(number)

    @cached_property
    def _encoder(self) -> "TextEncoder | ChatEncoder":
        tokenizer = take_tokenizer(self.space.tokenizer)
        if tokenizer.fingerprint() != self.plan.fingerprint:
            raise UserError(f"{self.space.tokenizer}", "was changed while the store was built", "remove the folder")
        if self.plan.options.get("chat"):
            from .chat_encoding import ChatEncoder

            return ChatEncoder(tokenizer, self.plan.now)
        return TextEncoder(tokenizer, self._threads)

    @cached_property
    def _layout(self) -> Layout:
        layout = read_layout(self.space)
        assert layout is not None, f"{self.space.layout} is missing"
        return layout

    def _write_shard(self, number: int) -> dict[str, Any]:
        shape = shape_of(self.plan)
        blocks = shard_blocks(self.space, self.plan, self._layout, number)
        (self.space.store / "c").mkdir(exist_ok=True)
        summary = asdict(write_shard(self.space.store, number, shape, blocks))
        record = {"plan": plan_digest(self.space), "shard": summary}
        if self.plan.masked:
            mask = self.space.store / LOSS_MASK
            (mask / "c").mkdir(parents=True, exist_ok=True)
            values = mask_blocks(self.space, self.plan, self._layout, number)
            record["mask"] = asdict(write_shard(mask, number, mask_shape(shape), values))
        write_record(self.space.shard_summary(number), record)
        return {"size_bytes": summary["size_bytes"]}


def shape_of(plan: Plan) -> ShardShape:
    """What all shards of the store share."""
    shard_tokens, size = plan.options["shard_tokens"], plan.vocabulary.size
    return ShardShape(dtype_for(size), size, chunk_tokens(shard_tokens), shard_tokens, plan.options["compression"])


def shard_summary(space: Workspace, number: int, what: str = "shard") -> ShardSummary | None:
    """What was written down of a shard that was published, or with "mask" of its mask; None if nothing was."""
    record = read_record(space.shard_summary(number))
    if record is None or record["plan"] != plan_digest(space) or what not in record:
        return None
    return ShardSummary(**record[what])


def is_whole(space: Workspace, number: int) -> bool:
    """Whether a shard is there, to the last byte."""
    summary, mask = shard_summary(space, number), shard_summary(space, number, "mask")
    whole = summary is not None and _is_as_written(space.store, summary)
    return whole and (mask is None or _is_as_written(space.store / LOSS_MASK, mask))


def _is_as_written(folder: Path, summary: ShardSummary) -> bool:
    path = folder / summary.file
    return path.is_file() and file_digest(path) == (summary.size_bytes, summary.digest)


def pack_error(error: BaseException) -> str:
    """An error as JSON."""
    record: dict[str, Any]
    if isinstance(error, UserError):
        record = {"kind": "bad" if isinstance(error, FoundBad) else "user", "words": _words(error)}
    elif isinstance(error, PartDamaged):
        record = {"kind": "damaged", "number": error.number}
    elif isinstance(error, OSError) and error.errno is not None:
        name = None if error.filename is None else str(error.filename)
        record = {"kind": "os", "words": [error.errno, error.strerror, name]}
    else:
        record = {"kind": "other", "words": [type(error).__name__, str(error)]}
    return json.dumps(record)


def unpack_error(text: str) -> Exception:
    """The error that pack_error packed."""
    record: dict[str, Any] = json.loads(text)
    kind = record["kind"]
    if kind == "user":
        return UserError(*record["words"])
    if kind == "bad":
        return FoundBad(*record["words"])
    if kind == "damaged":
        return PartDamaged(record["number"])
    return OSError(*record["words"]) if kind == "os" else RuntimeError(": ".join(record["words"]))


def _words(error: UserError) -> list[str]:
    return [error.where, error.problem, error.remedy]
