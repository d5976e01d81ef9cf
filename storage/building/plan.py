"""What a build is asked for and how it is cut: written once, so that a build that was killed goes on as it began."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ...config.errors import UserError
from ..tokens.store import COMPRESSIONS
from .deduplication import KINDS
from .inputs.hdf5 import Hdf5Tokens
from .parts import Part, Vocabulary, files_of
from .sources import Inputs, Selection
from .workspace import Workspace, read_record, write_record

CHUNK_TOKENS = 1 << 14
SHARD_TOKENS = 1 << 26
SHARD_STEP = 1 << 10
_VERSION = 2


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
    chat: bool = False
    """Whether records are chats; then `field` None is messages, conversations, or prompt and completion."""
    chat_template: str | None = None
    """File of a Jinja template, or `chatml`; None is the tokenizer's own."""
    shard_tokens: int = SHARD_TOKENS
    compression: str = "none"
    deduplicate: str = "none"
    """One of deduplication.KINDS: which documents are dropped."""
    near_threshold: float = 0.8
    """Jaccard similarity of two documents' 5-token sequences from which on they are near duplicates."""
    workers: int | None = None
    """Processes that work at once; None is the CPUs that this process may use. No store depends on it."""

    def check(self) -> None:
        """Raises UserError naming the option at fault."""
        if self.shard_tokens < SHARD_STEP or self.shard_tokens % SHARD_STEP:
            near = max(SHARD_STEP, round(self.shard_tokens / SHARD_STEP) * SHARD_STEP)
            problem = f"{self.shard_tokens} is not a multiple of {SHARD_STEP}"
            raise UserError("--shard-tokens", problem, f"give {near}, for example")
        for name, value, known in (
            ("--compression", self.compression, COMPRESSIONS),
            ("--deduplicate", self.deduplicate, KINDS),
        ):
            if value not in known:
                raise UserError(name, repr(value), f"use one of {', '.join(known)}")
        if self.chat_template is not None and not self.chat:
            raise UserError("--chat-template", "given without --chat", "give both, or leave it out")
        if not 0.3 <= self.near_threshold < 1:
            raise UserError("--near-threshold", f"{self.near_threshold:g}", "give a similarity from 0.3 to below 1")
        if self.workers is not None and self.workers < 1:
            raise UserError("--workers", str(self.workers), "give at least 1")

    @property
    def num_workers(self) -> int:
        """Processes that work at once."""
        return self.workers or len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Origin:
    """The store that is added to, as it was when that was planned."""

    store: str
    generation: int
    tokens: int
    documents: int


@dataclass(frozen=True)
class Plan:
    """Everything that decides a store's bytes, and the parts."""

    request: dict[str, Any]
    """Options, and the sources with size and mtime_ns."""
    fingerprint: str
    vocabulary: Vocabulary
    trained: bool
    """Whether the tokenizer was trained for this store."""
    parts: tuple[Part, ...]

    @property
    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = self.request["options"]
        return options

    @property
    def masked(self) -> bool:
        """Whether the store has a loss mask."""
        return bool(self.request.get("masked"))

    @property
    def now(self) -> datetime:
        """When the build was planned: what a chat template takes for today."""
        return datetime.fromisoformat(self.request["now"])

    @cached_property
    def origin(self) -> Origin | None:
        """The store that is added to, if one is."""
        given = self.request.get("origin")
        return None if given is None else Origin(**given)

    @cached_property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Size and mtime_ns of each source file, by the path as it was given."""
        return {path: (size, mtime_ns) for path, size, mtime_ns in self.request["files"]}


def chunk_tokens(shard_tokens: int) -> int:
    """Tokens of an inner chunk: 16,384, or what divides both it and a shard."""
    return math.gcd(shard_tokens, CHUNK_TOKENS)


def request_for(sources: Sequence[Path], inputs: Inputs, options: BuildOptions) -> dict[str, Any]:
    """What a build is asked for, as JSON holds it."""
    files = []
    for path in dict.fromkeys(path for each in inputs for path in files_of(each)):
        about = os.stat(path)
        files.append([path, about.st_size, about.st_mtime_ns])
    masked = options.chat or any(isinstance(each, Hdf5Tokens) and each.masked for each in inputs)
    return {
        "version": _VERSION,
        **({"masked": True} if masked else {}),
        **({"now": datetime.now().isoformat()} if options.chat else {}),
        "folder": os.getcwd(),
        "sources": [str(source) for source in sources],
        "options": {
            "vocab_size": options.vocab_size,
            "tokenizer": None if options.tokenizer is None else str(options.tokenizer),
            "extensions": list(options.selection.extensions),
            "exclude": list(options.selection.exclude),
            "format": options.format,
            "field": options.field,
            "shard_tokens": options.shard_tokens,
            "compression": options.compression,
            "deduplicate": options.deduplicate,
            "near_threshold": options.near_threshold if options.deduplicate == "near" else None,
            "chat": options.chat or None,
            "chat_template": options.chat_template,
        },
        "files": files,
    }


def difference(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """Why a build that was asked for `old` cannot go on as `new`, in a few words; None if it can."""
    if old.get("version") != _VERSION:
        return "another version of trainwright began it"
    changed = [name for name, value in new["options"].items() if old["options"].get(name) != value]
    if old.get("origin") != new.get("origin"):
        return "the store is another than it was"
    if changed:
        return f"--{changed[0].replace('_', '-')} is another"
    if (old["folder"], old["sources"]) != (new["folder"], new["sources"]):
        return "the sources are others"
    before = {path: about for path, *about in old["files"]}
    after = {path: about for path, *about in new["files"]}
    for path in [*after, *before]:
        if before.get(path) != after.get(path):
            word = "new" if path not in before else "gone" if path not in after else "changed"
            return f"{path} is {word}"
    return None


def write_plan(space: Workspace, plan: Plan) -> None:
    """Publish plan.json; before it there is nothing to go on from."""
    record = {
        "request": plan.request,
        "fingerprint": plan.fingerprint,
        "vocab_size": plan.vocabulary.size,
        "end_of_document": plan.vocabulary.end_of_document,
        "trained": plan.trained,
        "parts": [part.record() for part in plan.parts],
    }
    write_record(space.plan, record)


def read_plan(space: Workspace) -> Plan | None:
    """The plan of a folder, or None if it holds no whole one."""
    record = read_record(space.plan)
    if record is None:
        return None
    vocabulary = Vocabulary(record["vocab_size"], record["end_of_document"])
    parts = tuple(Part.of_record(part) for part in record["parts"])
    return Plan(record["request"], record["fingerprint"], vocabulary, record["trained"], parts)
