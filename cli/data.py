"""`trainwright data ...`: token stores; what is not here stands in data_build, data_look, data_pack and features."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .data_append import add_append
from .data_build import add_build, facts
from .data_copy import add_copy
from .data_look import add_compare, add_inspect, add_order
from .data_pack import add_pack
from .features import add_features
from .output import add_json_option, emit
from .places import local_path, location
from .progress import StageProgress


def add_parser(commands: Any) -> None:
    """Add `data` and its commands."""
    parser = commands.add_parser("data", help="build, inspect, verify and export token stores")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add_build(actions)
    add_append(actions)
    add_copy(actions)
    add_inspect(actions)
    add_compare(actions)
    add_order(actions)
    add_pack(actions)
    add_features(actions)
    for name, run, text in (
        ("verify", _verify, "check a store to the last byte; exit 3 if it is bad"),
        ("export", _export, "write a store to one HDF5 file, which `data build` reads back"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("store", metavar="STORE", type=location, help="folder of a token store, or its URL")
        if name == "export":
            action.add_argument("file", metavar="FILE.h5", type=local_path, help="HDF5 file to make")
        else:
            repair_help = "first replace files that are damaged or missing by those of this copy of the store"
            action.add_argument("--repair", metavar="FROM", type=location, help=repair_help)
        _finish(action, run)


def _finish(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    add_json_option(parser)
    parser.set_defaults(run=run)


def _verify(arguments: argparse.Namespace) -> int:
    from ..config.errors import FoundBad, UserError
    from ..storage.loading.packing import verify_packings
    from ..storage.tokens.repair import repair_store
    from ..storage.tokens.verify import verify_store

    repaired: list[str] = []
    try:
        with StageProgress() as line:
            if arguments.repair:
                if not isinstance(arguments.store, Path):
                    remedy = "`trainwright data copy FROM STORE` replaces what is bad there"
                    raise UserError("--repair", f"{arguments.store} is a URL", remedy)
                told = partial(line.show, "repair")
                repaired = repair_store(arguments.store, arguments.repair, told)
            info = verify_store(arguments.store, lambda done, total: line.show("verify", done, total))
            verify_packings(arguments.store)
    except FoundBad as error:
        if arguments.json:
            bad = {"file": error.where, "problem": error.problem, "remedy": error.remedy}
            emit(arguments, {"store": str(arguments.store), "good": False, **bad}, "")
        raise
    text = f"{arguments.store}: good, {info.tokens:,} tokens in {info.num_shards} shards"
    record = {"store": str(arguments.store), "good": True, **facts(info)}
    if arguments.repair:
        text = "\n".join([*(f"repaired {name}" for name in repaired), text])
        record["repaired"] = repaired
    emit(arguments, record, text)
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from ..storage.tokens.hdf5_export import export_hdf5

    with StageProgress() as line:
        info = export_hdf5(arguments.store, arguments.file, lambda done, total: line.show("export", done, total))
    record = {"store": str(arguments.store), "file": str(arguments.file), **facts(info)}
    record["size_bytes"] = arguments.file.stat().st_size
    emit(arguments, record, f"{arguments.file}: {info.tokens:,} tokens of {info.documents:,} documents")
    return 0
