"""`trainwright data append SOURCE... STORE`: more documents for a store, as its next generation."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from .data_build import add_cluster, add_deduplication, dropped, facts, near_threshold, refuse_jobs
from .output import add_json_option, emit
from .places import local_path
from .progress import StageProgress

if TYPE_CHECKING:
    from ..storage.building.append import AppendResult
    from ..storage.building.plan import BuildOptions


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
    workers_help = "processes that work at once, or array tasks with --cluster; the store is the same (all CPUs)"
    append.add_argument("--workers", type=int, metavar="N", help=workers_help)
    add_cluster(append)
    add_json_option(append)
    append.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Append here, or with --cluster submit."""
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
    if arguments.cluster is not None:
        return _on_cluster(arguments, options)
    refuse_jobs(arguments)
    with StageProgress() as line:
        result = append_store(arguments.sources, arguments.store, options, (line.show, line.say))
    _report(arguments, options, result)
    return 0


def _on_cluster(arguments: argparse.Namespace, options: "BuildOptions") -> int:
    from ..storage.building.append import AppendResult, plan_append, request_of
    from ..storage.tokens.store import read_info
    from .data_build_jobs import Work, do_on_cluster

    options.check()
    read_info(arguments.store)
    work = Work(
        verb="append",
        workers=options.workers,
        request=lambda: request_of(arguments.sources, arguments.store, options),
        plan=lambda store, watchers: plan_append(arguments.sources, store, options, watchers),
        report=lambda record: _report(arguments, options, AppendResult(read_info(arguments.store), **record)),
    )
    return do_on_cluster(arguments, work)


def _report(arguments: argparse.Namespace, options: "BuildOptions", result: "AppendResult") -> None:
    """Say what the store is now."""
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
