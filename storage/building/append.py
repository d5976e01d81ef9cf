"""Adding documents to a store: its next generation, built beside it as a store is, and then put in its place."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...config.errors import UserError
from ..tokens.growing import discard_staged, finish_append, publish_append
from ..tokens.store import TOKENIZER, StoreInfo, read_info
from ..tokens.tokenizer import open_tokenizer
from .assembly import Assembly, NothingNew, Progress
from .build import Say
from .build_folder import empty, folder_beside, remove_work
from .build_tokenizer import choose_tokenizer
from .chat_encoding import with_template
from .crew import Crew, Unfinished
from .known import known_parts
from .layout import read_layout
from .parts import Vocabulary, cut_inputs
from .plan import BuildOptions, Origin, Plan, difference, read_plan, request_for, write_plan
from .sources import Inputs, open_sources
from .workspace import Workspace, write_whole


@dataclass(frozen=True)
class AppendResult:
    """What was added."""

    info: StoreInfo
    """Of the store as it is now."""
    tokens: int
    documents: int
    skipped: int
    dropped_exact: int = 0
    dropped_near: int = 0
    """Documents that were dropped as equal, and as nearly equal, to others that stay or are there already."""


def append_store(
    sources: Sequence[Path], store: Path, options: BuildOptions, watchers: tuple[Progress, Say]
) -> AppendResult:
    """Add documents after the last one of a store. All options count but vocab_size, tokenizer and how it is stored.

    What is dropped as a duplicate is compared with the whole store; if all is, the store stays as it is. Tokenizer,
    shards and compression are the store's. Older generations read the same tokens as before, and readers that have
    the store open are not disturbed. A killed append goes on where it was when the same is asked for, and is never
    done twice. Raises UserError for a bad source, or if there is no store; FoundBad for a damaged one.
    """
    options.check()
    own = _of_store(options, store, read_info(store))
    with folder_beside(store) as space:
        plan = _prepared(space, sources, store, own, watchers)
        return complete_append(space, store, plan, options.num_workers, watchers[0])


@contextmanager
def plan_append(
    sources: Sequence[Path], store: Path, options: BuildOptions, watchers: tuple[Progress, Say]
) -> Iterator[int]:
    """Plan an append that others will do, with the folder locked meanwhile; the number of parts that are missing."""
    options.check()
    own = _of_store(options, store, read_info(store))
    with folder_beside(store) as space:
        plan = _prepared(space, sources, store, own, watchers)
        with Crew(space, 1) as crew:
            missing = Assembly(space, plan, crew, watchers[0]).missing_parts()
        try:
            yield 0 if _is_done(plan, store) else len(missing)
        except UserError as error:  # of a cluster that refuses: no reason to lose what is done
            raise Unfinished(error.where, error.problem, error.remedy) from None


def request_of(sources: Sequence[Path], store: Path, options: BuildOptions) -> dict[str, Any]:
    """What an append is asked for, as JSON holds it, with the store as it is now."""
    info = read_info(store)
    return _request(sources, store, _of_store(options, store, info), info)[0]


def complete_append(space: Workspace, store: Path, plan: Plan, workers: int, progress: Progress) -> AppendResult:
    """Do what is left of a plan, and remove the work; nothing is left if it was carried out already."""
    finish_append(store)
    if not _is_done(plan, store):
        discard_staged(store)
        _carry_out(space, store, plan, workers, progress)
    result = _result(space, plan, read_info(store))
    remove_work(space)
    return result


def _is_done(plan: Plan, store: Path) -> bool:
    assert plan.origin is not None
    return plan.origin.generation < read_info(store).generation


def _carry_out(space: Workspace, store: Path, plan: Plan, workers: int, progress: Progress) -> None:
    """Put the next generation in the store's place, if anything is new."""
    try:
        with Crew(space, workers) as crew:
            Assembly(space, plan, crew, progress).finish()
    except NothingNew:
        return
    publish_append(store, space.store)


def _of_store(options: BuildOptions, store: Path, info: StoreInfo) -> BuildOptions:
    return BuildOptions(
        tokenizer=Path(os.path.abspath(store), TOKENIZER),
        selection=options.selection,
        format=options.format,
        field=options.field,
        chat=options.chat,
        shard_tokens=info.shard_tokens,
        compression=info.compression,
        deduplicate=options.deduplicate,
        near_threshold=options.near_threshold,
        workers=options.workers,
    )


def _prepared(
    space: Workspace,
    sources: Sequence[Path],
    store: Path,
    options: BuildOptions,
    watchers: tuple[Progress, Say],
) -> Plan:
    """The plan, which was carried out already if an append was killed when all was published."""
    progress, say = watchers
    finish_append(store)
    discard_staged(store)
    info = read_info(store)
    request, inputs = _request(sources, store, options, info)
    found = read_plan(space)
    if found is not None and found.origin is not None and found.origin.generation == info.generation - 1:
        as_then = {**request, "origin": found.request["origin"]}
        if difference(found.request, as_then) is None:
            say("was killed when all was done: nothing is added again")
            return found
    reason = "nothing was planned" if found is None else difference(found.request, request)
    if found is not None and reason is None:
        say(f"goes on where it was, with {len(found.parts)} parts")
        return found
    if found is not None:
        say(f"starts over, since {reason}")
    return _planned(space, request, inputs, (options, progress))


def _request(
    sources: Sequence[Path], store: Path, options: BuildOptions, info: StoreInfo
) -> tuple[dict[str, Any], Inputs]:
    inputs = open_sources(sources, options.selection, options.format, options.field, chats=options.chat)
    origin = Origin(os.path.abspath(store), info.generation, info.tokens, info.documents)
    request = {**request_for(sources, inputs, options), "origin": asdict(origin)}
    if request.get("masked") and info.trained_tokens is None:
        remedy = "build a store of it, and name both in data.train"
        raise UserError(f"STORE {store}", "has no loss mask, and what is added would need one", remedy)
    request |= {} if info.trained_tokens is None else {"masked": True}
    return request, inputs


def _planned(space: Workspace, request: dict[str, Any], inputs: Inputs, how: tuple[BuildOptions, Progress]) -> Plan:
    options, progress = how
    empty(space)
    space.make()
    assert options.tokenizer is not None
    choose_tokenizer(inputs, options.tokenizer, None, progress)
    tokenizer = open_tokenizer(options.tokenizer.parent)
    if options.chat:
        with_template(tokenizer, None)
    for name, text in tokenizer.files.items():
        write_whole(space.tokenizer / name, text.encode())
    vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.end_of_document)
    store = Path(request["origin"]["store"])
    known = [] if options.deduplicate == "none" else known_parts(store, read_info(store))
    parts = (*known, *cut_inputs(inputs, vocabulary))
    plan = Plan(request, tokenizer.fingerprint(), vocabulary, False, parts)
    write_plan(space, plan)
    return plan


def _result(space: Workspace, plan: Plan, info: StoreInfo) -> AppendResult:
    layout, origin = read_layout(space), plan.origin
    assert origin is not None
    tokens, documents = info.tokens - origin.tokens, info.documents - origin.documents
    if layout is None:
        return AppendResult(info, tokens, documents, 0)
    return AppendResult(info, tokens, documents, layout.skipped, layout.exact, layout.near)
