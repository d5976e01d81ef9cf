"""From sources to a token store: parts are tokenized at once, shards are put together of them, all appears at once."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config.errors import UserError
from ..durable import sync
from ..tokens.store import StoreInfo
from ..tokens.tokenizer import StoreTokenizer, take_tokenizer
from .assembly import Assembly, Progress
from .build_folder import building_folder, discard, empty, folder_beside, remove_work
from .build_tokenizer import choose_tokenizer
from .crew import Crew, Unfinished
from .inputs.base import TextInput
from .parts import Vocabulary, cut_inputs
from .plan import SHARD_TOKENS, BuildOptions, Plan, difference, read_plan, request_for, write_plan
from .sources import Inputs, open_sources
from .workspace import Workspace, write_whole

__all__ = ["SHARD_TOKENS", "BuildOptions", "BuildResult", "build_store", "finish_build", "plan_build", "prepare_build"]

Say = Callable[[str], None]
"""Called with one line for the user."""


@dataclass(frozen=True)
class BuildResult:
    """What was built."""

    info: StoreInfo
    skipped: int
    """Text files that were left out because they are not UTF-8, or hold a NUL."""
    trained: bool
    """Whether the tokenizer was trained here."""
    dropped_exact: int = 0
    dropped_near: int = 0
    """Documents that were dropped as duplicates and as near duplicates of earlier ones."""


def _no_word(line: str) -> None:
    return


def build_store(
    sources: Sequence[Path], store: Path, options: BuildOptions, progress: Progress, say: Say = _no_word
) -> BuildResult:
    """Build the token store `store` (which must not exist) from folders and files of any known format.

    The store's bytes do not depend on options.workers. What a killed build did is found beside the store and not done
    again, if the same is asked for; `say` is told. Raises UserError for a bad source, option or tokenizer, or an
    existing store, and then nothing is left; crew.Unfinished where a worker is killed or the disk is full, and
    KeyboardInterrupt: then what is whole is kept. OSError with a file name if the disk refuses otherwise.
    """
    options.check()
    _refuse_existing(store)
    with folder_beside(store) as space:
        plan = prepare_build(space, sources, options, (progress, say))
        return finish_build(space, store, plan, options.num_workers, progress)


@contextmanager
def plan_build(
    sources: Sequence[Path], store: Path, options: BuildOptions, watchers: tuple[Progress, Say]
) -> Iterator[int]:
    """Plan a build that others will do, with the folder locked meanwhile; the number of parts that are missing."""
    options.check()
    _refuse_existing(store)
    with folder_beside(store) as space:
        plan = prepare_build(space, sources, options, watchers)
        with Crew(space, 1) as crew:
            missing = len(Assembly(space, plan, crew, watchers[0]).missing_parts())
        try:
            yield missing
        except UserError as error:  # of a cluster that refuses: no reason to lose what is done
            raise Unfinished(error.where, error.problem, error.remedy) from None


def prepare_build(
    space: Workspace, sources: Sequence[Path], options: BuildOptions, watchers: tuple[Progress, Say]
) -> Plan:
    """Cut the sources into parts and choose the tokenizer, or find that this was done before for the same request."""
    progress, say = watchers
    if options.chat and options.tokenizer is None:
        raise UserError("--tokenizer", "not given, and chats are rendered for a model", "give the model's own")
    inputs = open_sources(sources, options.selection, options.format, options.field, chats=options.chat)
    request = request_for(sources, inputs, options)
    found = read_plan(space)
    reason = _reason_to_start_over(space, found, request, options)
    if found is not None and reason is None:
        done = sum(1 for _ in (space.folder / "parts").glob("*.json"))
        say(f"goes on where it was: {done} of {len(found.parts)} parts are tokenized")
        return found
    if found is not None:
        say(f"starts over, since {reason}")
    empty(space)
    space.make()
    tokenizer = _completed(choose_tokenizer(inputs, options.tokenizer, options.vocab_size, progress), options)
    for name, text in tokenizer.files.items():
        write_whole(space.tokenizer / name, text.encode())
    plan = _plan(request, inputs, tokenizer, options)
    write_plan(space, plan)
    return plan


def finish_build(space: Workspace, store: Path, plan: Plan, workers: int, progress: Progress) -> BuildResult:
    """Do what is left of a plan, and publish the store."""
    with Crew(space, workers) as crew:
        info, layout = Assembly(space, plan, crew, progress).finish()
    _refuse_existing(store)
    os.rename(space.store, store)
    sync(store.parent)
    remove_work(space)
    return BuildResult(info, layout.skipped, plan.trained, layout.exact, layout.near)


def _plan(request: dict[str, Any], inputs: Inputs, tokenizer: StoreTokenizer, options: BuildOptions) -> Plan:
    vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.end_of_document)
    trained = options.tokenizer is None and all(isinstance(each, TextInput) for each in inputs)
    parts = tuple(cut_inputs(inputs, vocabulary))
    return Plan(request, tokenizer.fingerprint(), vocabulary, trained, parts)


def _completed(tokenizer: StoreTokenizer, options: BuildOptions) -> StoreTokenizer:
    """With what chats need of it."""
    if not options.chat:
        return tokenizer
    from .chat_encoding import with_template

    return with_template(tokenizer, options.chat_template)


def _reason_to_start_over(
    space: Workspace, found: Plan | None, request: dict[str, Any], options: BuildOptions
) -> str | None:
    if found is None:
        return "nothing was planned"
    reason = difference(found.request, request)
    if reason is None and options.tokenizer is not None:
        files = _completed(take_tokenizer(options.tokenizer), options).files
        kept = {path.name: path.read_bytes() for path in space.tokenizer.iterdir()}
        if kept != {name: text.encode() for name, text in files.items()}:
            return f"{options.tokenizer} is changed"
    return reason


def _refuse_existing(store: Path) -> None:
    if not os.path.lexists(store):
        return
    left = building_folder(store)
    if left.is_dir() and not (left / "store").exists():  # killed between publishing the store and tidying up
        discard(left)
    raise UserError(f"STORE {store}", "exists already", "give another name, or remove it first")
