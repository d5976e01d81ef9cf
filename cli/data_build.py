"""`trainwright data build`: a token store from text or token ids, on this machine or as jobs of a cluster."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import add_json_option, emit
from .places import local_path
from .progress import StageProgress

if TYPE_CHECKING:
    from ..storage.building.build import BuildOptions, BuildResult
    from ..storage.tokens.store import StoreInfo


def add_build(actions: Any) -> None:
    """Add `build`."""
    build = actions.add_parser("build", help="make a token store from text or token ids")
    source_help = (
        "folder or file: text, JSON lines, Parquet, HDF5, a saved Hugging Face dataset, Megatron's .bin and .idx, "
        "nanoGPT's .bin"
    )
    build.add_argument("sources", nargs="+", metavar="SOURCE", type=local_path, help=source_help)
    build.add_argument("store", metavar="STORE", type=local_path, help="folder to make, such as stores/text.zarr")
    which = build.add_mutually_exclusive_group()
    which.add_argument("--vocab-size", type=int, metavar="N", help="train a byte-level BPE of this size (32768)")
    which.add_argument("--tokenizer", type=Path, metavar="PATH", help="Hugging Face folder or tokenizer.json to take")
    extension_help = "take only files that end so (repeat for several)"
    build.add_argument("--extension", action="append", default=[], metavar=".EXT", help=extension_help)
    exclude_help = "leave out files and folders of this name or pattern (repeat for several)"
    build.add_argument("--exclude", action="append", default=[], metavar="NAME", help=exclude_help)
    format_help = (
        "what the sources are: auto, text, jsonl, parquet, hdf5, arrow, megatron or nanogpt (auto: by name and content)"
    )
    build.add_argument("--format", default="auto", metavar="FORMAT", help=format_help)
    field_help = "JSON key, column or HDF5 dataset that holds the text (text)"
    build.add_argument("--field", metavar="NAME", help=field_help)
    chat_help = "records are chats: messages, ShareGPT's conversations, or prompt and completion; needs --tokenizer"
    build.add_argument("--chat", action="store_true", help=chat_help)
    template_help = "Jinja template to render chats with, or chatml (the tokenizer's own)"
    build.add_argument("--chat-template", metavar="FILE|chatml", help=template_help)
    build.add_argument("--shard-tokens", type=int, metavar="N", help="tokens of a shard file (67108864)")
    build.add_argument("--compression", default="none", metavar="none|zstd", help="codec of the chunks (none)")
    add_deduplication(build)
    workers_help = "processes that work at once, or array tasks with --cluster; the store is the same (all CPUs)"
    build.add_argument("--workers", type=int, metavar="N", help=workers_help)
    add_cluster(build)
    add_json_option(build)
    build.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Build here, or with --cluster submit."""
    from ..storage.building.build import build_store
    from ..storage.building.build_folder import is_left_from

    options = _options(arguments)
    if arguments.cluster is not None:
        return _on_cluster(arguments, options)
    refuse_jobs(arguments)
    try:
        with StageProgress() as line:
            result = build_store(arguments.sources, arguments.store, options, line.show, line.say)
    except KeyboardInterrupt:
        if is_left_from(arguments.store):
            print("what is done is kept; the same command goes on where it was", file=sys.stderr)
        raise
    report(arguments, options, result)
    return 0


def _on_cluster(arguments: argparse.Namespace, options: "BuildOptions") -> int:
    from ..storage.building.build import BuildResult, plan_build
    from ..storage.building.plan import request_for
    from ..storage.building.sources import open_sources
    from ..storage.tokens.store import read_info
    from .data_build_jobs import Work, do_on_cluster

    def request() -> dict[str, Any]:
        inputs = open_sources(arguments.sources, options.selection, options.format, options.field, chats=options.chat)
        return request_for(arguments.sources, inputs, options)

    options.check()
    work = Work(
        verb="build",
        workers=options.workers,
        request=request,
        plan=lambda store, watchers: plan_build(arguments.sources, store, options, watchers),
        report=lambda record: report(arguments, options, BuildResult(read_info(arguments.store), **record)),
    )
    return do_on_cluster(arguments, work)


def add_cluster(command: argparse.ArgumentParser) -> None:
    """The options by which jobs do the work."""
    command.add_argument("--cluster", metavar="PROFILE", help="do it as jobs of this profile's Slurm cluster")
    command.add_argument("--wait", action="store_true", help="with --cluster: follow the jobs until all is done")


def refuse_jobs(arguments: argparse.Namespace) -> None:
    """Raises UserError if jobs of a cluster are at the store already, or are to be waited for without --cluster."""
    from ..config.errors import UserError
    from ..storage.building.build_folder import building_folder

    if arguments.wait:
        raise UserError("--wait", "given without --cluster", "leave it out: what is done here is waited for")
    if (building_folder(arguments.store) / "jobs.json").exists():
        from .data_build_jobs import refuse_living_jobs

        refuse_living_jobs(arguments.store)


def report(arguments: argparse.Namespace, options: "BuildOptions", result: "BuildResult") -> None:
    """Say what was built."""
    from ..storage.tokens.tokenizer import VOCAB_SIZE

    info = result.info
    if result.skipped:
        print(f"skipped {result.skipped} files that are not UTF-8 text", file=sys.stderr)
    wanted = VOCAB_SIZE if options.vocab_size is None else options.vocab_size
    if result.trained and info.vocab_size < wanted:
        note = f"the text has pairs for a vocabulary of {info.vocab_size} only, not {wanted}"
        print(f"note: {note}", file=sys.stderr)
    record = {"store": str(arguments.store), **facts(info), "skipped_files": result.skipped}
    text = f"{arguments.store}: {info.tokens:,} tokens of {info.documents:,} documents, vocabulary {info.vocab_size:,}"
    if info.trained_tokens is not None:
        text += f", {info.trained_tokens / info.tokens:.1%} of the tokens trained"
    emit(arguments, record, text + dropped(options, result.dropped_exact, result.dropped_near))


def add_deduplication(command: argparse.ArgumentParser) -> None:
    """The options by which duplicates are dropped."""
    drop_help = "drop documents of the same tokens as an earlier one, or also of nearly the same (none)"
    command.add_argument("--deduplicate", default="none", metavar="none|exact|near", help=drop_help)
    near_help = "how similar near duplicates are, from 0.3 to below 1 (0.8)"
    command.add_argument("--near-threshold", type=float, metavar="X", help=near_help)


def near_threshold(arguments: argparse.Namespace) -> float:
    """The one that was given, or 0.8. Raises UserError if it was given for nothing."""
    from ..config.errors import UserError

    if arguments.near_threshold is not None and arguments.deduplicate != "near":
        raise UserError("--near-threshold", "given without --deduplicate near", "give both, or leave it out")
    return 0.8 if arguments.near_threshold is None else float(arguments.near_threshold)


def dropped(options: "BuildOptions", exact: int, near: int) -> str:
    """What was dropped, in words; nothing if nothing was to be."""
    if options.deduplicate == "none":
        return ""
    nearly = f" and {near:,} nearly equal" if options.deduplicate == "near" else ""
    return f"; dropped {exact:,} equal{nearly} documents"


def facts(info: "StoreInfo") -> dict[str, Any]:
    """What every command that shows a store says of it."""
    record = {
        "tokens": info.tokens,
        "documents": info.documents,
        "dtype": info.dtype,
        "vocab_size": info.vocab_size,
        "end_of_document": info.end_of_document,
        "tokenizer_fingerprint": info.tokenizer_fingerprint,
        "shards": info.num_shards,
        "shard_tokens": info.shard_tokens,
        "chunk_tokens": info.chunk_tokens,
        "compression": info.compression,
        "generation": info.generation,
        "size_bytes": info.size_bytes,
    }
    if info.trained_tokens is not None:
        record |= {"trained_tokens": info.trained_tokens, "trained_share": round(info.trained_tokens / info.tokens, 4)}
    return record if info.deduplication is None else {**record, "deduplication": info.deduplication}


def _options(arguments: argparse.Namespace) -> "BuildOptions":
    from ..storage.building.build import SHARD_TOKENS, BuildOptions
    from ..storage.building.sources import Selection

    extensions = tuple("." + text.removeprefix(".") for text in arguments.extension)
    return BuildOptions(
        vocab_size=arguments.vocab_size,
        tokenizer=arguments.tokenizer,
        selection=Selection(extensions, tuple(arguments.exclude)),
        format=arguments.format,
        field=arguments.field,
        chat=arguments.chat,
        chat_template=arguments.chat_template,
        shard_tokens=SHARD_TOKENS if arguments.shard_tokens is None else arguments.shard_tokens,
        compression=arguments.compression,
        deduplicate=arguments.deduplicate,
        near_threshold=near_threshold(arguments),
        workers=arguments.workers,
    )
