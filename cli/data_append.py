"""`trainwright data append SOURCE... STORE`: more documents for a store, as its next generation."""

import argparse
import sys
from typing import Any

from .data_build import add_deduplication, dropped, facts, near_threshold
from .output import add_json_option, emit
from .places import local_path
from .progress import StageProgress


def add_append(actions: Any) -> None:
    """Add `append`."""
    append = actions.add_parser("append", help="add documents to a store, as its next generation")
    append.add_argument("sources", nargs="+", metavar="SOURCE", type=local_path, help="as of `data build`")
    append.add_argument("store", metavar="STORE", type=local_path, help="folder of a token store")
    for name, metavar, text in (
        ("--extension", ".EXT", "take only files that end so (repeat for several)"),
        ("--exclude", "NAME", "leave out files and folders of this name or pattern (repeat for several)"),
    ):
        append.add_argument(name, action="append", default=[], metavar=metavar, help=text)
    append.add_argument("--format", default="auto", metavar="FORMAT", help="what the sources are, as of `data build`")
    append.add_argument("--field", metavar="NAME", help="JSON key, column or HDF5 dataset that holds the text (text)")
    append.add_argument("--chat", action="store_true", help="records are chats, as of `data build`")
    add_deduplication(append)
    append.add_argument("--workers", type=int, metavar="N", help="processes that work at once (all CPUs)")
    add_json_option(append)
    append.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Append, and say what the store is now."""
    from ..storage.building.append import append_store
    from ..storage.building.plan import BuildOptions
    from ..storage.building.sources import Selection

    extensions = tuple("." + text.removeprefix(".") for text in arguments.extension)
    options = BuildOptions(
        selection=Selection(extensions, tuple(arguments.exclude)),
        format=arguments.format,
        field=arguments.field,
        chat=arguments.chat,
        deduplicate=arguments.deduplicate,
        near_threshold=near_threshold(arguments),
        workers=arguments.workers,
    )
    with StageProgress() as line:
        result = append_store(arguments.sources, arguments.store, options, (line.show, line.say))
    if result.skipped:
        print(f"skipped {result.skipped} files that are not UTF-8 text", file=sys.stderr)
    info = result.info
    added = {"added_tokens": result.tokens, "added_documents": result.documents, "skipped_files": result.skipped}
    added |= {"dropped_exact": result.dropped_exact, "dropped_near": result.dropped_near}
    text = (
        f"{arguments.store}: generation {info.generation}: {result.tokens:,} tokens of {result.documents:,} documents "
        f"added, {info.tokens:,} of {info.documents:,} in all"
    )
    text += dropped(options, result.dropped_exact, result.dropped_near)
    emit(arguments, {"store": str(arguments.store), **facts(info), **added}, text)
    return 0
