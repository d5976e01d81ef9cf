"""`trainwright data build|inspect|verify|export`: token stores."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .output import add_json_option, emit
from .progress import StageProgress

_EXCERPT_TOKENS = 64


def add_parser(commands: Any) -> None:
    """Add `data` and its commands."""
    parser = commands.add_parser("data", help="build, inspect, verify and export token stores")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_build(actions)
    for name, run, text in (
        ("inspect", _inspect, "show what a store holds"),
        ("verify", _verify, "check a store to the last byte; exit 3 if it is bad"),
        ("export", _export, "write a store to one HDF5 file, which `data build` reads back"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("store", metavar="STORE", type=Path, help="folder of a token store")
        if name == "export":
            action.add_argument("file", metavar="FILE.h5", type=Path, help="HDF5 file to make")
        _finish(action, run)


def _add_build(actions: Any) -> None:
    build = actions.add_parser("build", help="make a token store from text or token ids")
    source_help = (
        "folder or file: text, JSON lines, Parquet, HDF5, a saved Hugging Face dataset, Megatron's .bin and .idx"
    )
    build.add_argument("sources", nargs="+", metavar="SOURCE", type=Path, help=source_help)
    build.add_argument("store", metavar="STORE", type=Path, help="folder to make, such as stores/text.zarr")
    which = build.add_mutually_exclusive_group()
    which.add_argument("--vocab-size", type=int, metavar="N", help="train a byte-level BPE of this size (32768)")
    which.add_argument("--tokenizer", type=Path, metavar="PATH", help="Hugging Face folder or tokenizer.json to take")
    extension_help = "take only files that end so (repeat for several)"
    build.add_argument("--extension", action="append", default=[], metavar=".EXT", help=extension_help)
    exclude_help = "leave out files and folders of this name or pattern (repeat for several)"
    build.add_argument("--exclude", action="append", default=[], metavar="NAME", help=exclude_help)
    format_help = (
        "what the sources are: auto, text, jsonl, parquet, hdf5, arrow or megatron (auto: by name and content)"
    )
    build.add_argument("--format", default="auto", metavar="FORMAT", help=format_help)
    field_help = "JSON key, column or HDF5 dataset that holds the text (text)"
    build.add_argument("--field", metavar="NAME", help=field_help)
    build.add_argument("--shard-tokens", type=int, metavar="N", help="tokens of a shard file (67108864)")
    build.add_argument("--compression", default="none", metavar="none|zstd", help="codec of the chunks (none)")
    _finish(build, _build)


def _finish(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    add_json_option(parser)
    parser.set_defaults(run=run)


def _build(arguments: argparse.Namespace) -> int:
    from ..storage.building.build import SHARD_TOKENS, BuildOptions, build_store
    from ..storage.building.sources import Selection
    from ..storage.tokens.tokenizer import VOCAB_SIZE

    extensions = tuple("." + text.removeprefix(".") for text in arguments.extension)
    options = BuildOptions(
        vocab_size=arguments.vocab_size,
        tokenizer=arguments.tokenizer,
        selection=Selection(extensions, tuple(arguments.exclude)),
        format=arguments.format,
        field=arguments.field,
        shard_tokens=SHARD_TOKENS if arguments.shard_tokens is None else arguments.shard_tokens,
        compression=arguments.compression,
    )
    with StageProgress() as line:
        result = build_store(arguments.sources, arguments.store, options, line.show)
    info = result.info
    if result.skipped:
        print(f"skipped {result.skipped} files that are not UTF-8 text", file=sys.stderr)
    wanted = VOCAB_SIZE if options.vocab_size is None else options.vocab_size
    if result.trained and info.vocab_size < wanted:
        note = f"the text has pairs for a vocabulary of {info.vocab_size} only, not {wanted}"
        print(f"note: {note}", file=sys.stderr)
    record = {"store": str(arguments.store), **_facts(info), "skipped_files": result.skipped}
    text = f"{arguments.store}: {info.tokens:,} tokens of {info.documents:,} documents, vocabulary {info.vocab_size:,}"
    emit(arguments, record, text)
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from ..storage.tokens.reader import open_store
    from ..storage.tokens.tokenizer import open_tokenizer

    store = open_store(arguments.store)
    first = store.read(0, min(_EXCERPT_TOKENS, store.num_tokens)).tolist()
    record = {
        "store": str(arguments.store),
        **_facts(store.info),
        "first_text": open_tokenizer(arguments.store).decode(first),
    }
    emit(arguments, record, "\n".join(f"{name:22} {_shown(value)}" for name, value in record.items()))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from ..config.errors import FoundBad
    from ..storage.tokens.verify import verify_store

    try:
        with StageProgress() as line:
            info = verify_store(arguments.store, lambda done, total: line.show("verify", done, total))
    except FoundBad as error:
        if arguments.json:
            bad = {"file": error.where, "problem": error.problem, "remedy": error.remedy}
            emit(arguments, {"store": str(arguments.store), "good": False, **bad}, "")
        raise
    text = f"{arguments.store}: good, {info.tokens:,} tokens in {info.num_shards} shards"
    emit(arguments, {"store": str(arguments.store), "good": True, **_facts(info)}, text)
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from ..storage.tokens.hdf5_export import export_hdf5

    with StageProgress() as line:
        info = export_hdf5(arguments.store, arguments.file, lambda done, total: line.show("export", done, total))
    record = {"store": str(arguments.store), "file": str(arguments.file), **_facts(info)}
    record["size_bytes"] = arguments.file.stat().st_size
    emit(arguments, record, f"{arguments.file}: {info.tokens:,} tokens of {info.documents:,} documents")
    return 0


def _facts(info: Any) -> dict[str, Any]:
    return {
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


def _shown(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        return repr(value) if isinstance(value, str) and "\n" in value else str(value)
    return f"{value:,}"
