"""`trainwright data features ...`: what is known of documents, for choosing them and for looking them up."""

import argparse
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from .output import add_json_option, emit
from .places import local_path
from .progress import StageProgress

_TIME_HELP = "ISO 8601, such as 2026-11-24T12:00:00Z; without a zone it is UTC"
_DATABASE_HELP = "features file that `data features import` made"


def add_features(actions: Any) -> None:
    """Add `features` and its commands."""
    parser = actions.add_parser("features", help="features of documents: import, select by, look up, export")
    commands = parser.add_subparsers(dest="features_action", metavar="ACTION", required=True)
    _add_import(commands)
    _add_select(commands)
    ids = commands.add_parser("ids", help="write the id of each document of a store to a CSV file")
    ids.add_argument("store", metavar="STORE", type=local_path, help="folder of a token store")
    ids.add_argument("file", metavar="FILE.csv", type=local_path, help="file to make: number, document, tokens")
    _finish(ids, _ids)
    lookup = commands.add_parser("lookup", help="show what is known of one document")
    _add_database(lookup)
    lookup.add_argument("document", metavar="DOCUMENT", help="its id, 32 hexadecimal digits")
    lookup.add_argument("--as-of", metavar="TIME", help=f"as it was known at a time (now). {_TIME_HELP}")
    _finish(lookup, _lookup)
    show = commands.add_parser("show", help="show which features there are")
    _add_database(show)
    _finish(show, _show)
    verify_help = "check all rows, and that join and look-up give equal answers; exit 3 if not"
    verify = commands.add_parser("verify", help=verify_help)
    _add_database(verify)
    seed_help = "decides at which times the two are compared (the clock)"
    verify.add_argument("--seed", type=int, metavar="N", help=seed_help)
    _finish(verify, _verify)
    export = commands.add_parser("export", help="write a folder that Feast reads")
    _add_database(export)
    export.add_argument("folder", metavar="FOLDER", type=local_path, help="folder to make")
    _finish(export, _export)


def _add_import(commands: Any) -> None:
    parser = commands.add_parser("import", help="add values from JSON lines, Parquet or CSV")
    source_help = "file of records: document, event_time, and a field for each feature"
    parser.add_argument("sources", nargs="+", metavar="SOURCE", type=local_path, help=source_help)
    parser.add_argument("database", metavar="FEATURES.db", type=local_path, help="features file to make, or to add to")
    feature_help = "take only this field as a feature (repeat for several)"
    parser.add_argument("--feature", action="append", default=[], metavar="NAME", help=feature_help)
    store_help = "records hold `text` instead of `document`; this token store's tokenizer turns it into the id"
    parser.add_argument("--store", type=local_path, metavar="STORE", help=store_help)
    time_help = f"event time of records that have none. {_TIME_HELP}"
    parser.add_argument("--event-time", metavar="TIME", help=time_help)
    _finish(parser, _import)


def _add_select(commands: Any) -> None:
    parser = commands.add_parser("select", help="choose documents of a store by their features at a time")
    parser.add_argument("store", metavar="STORE", type=local_path, help="folder of a token store")
    _add_database(parser)
    parser.add_argument("output", metavar="OUT.npz", type=local_path, help="selection to write")
    parser.add_argument("--as-of", required=True, metavar="TIME", help=f"what was known by then. {_TIME_HELP}")
    where_help = "which documents: quality >= 0.7 and language == 'en', for example"
    parser.add_argument("--where", required=True, metavar="EXPRESSION", help=where_help)
    weights_help = "weight of each of them, 0 to 1000: a number or an expression such as min(2 * quality, 1.5) (1)"
    parser.add_argument("--weights", default="1", metavar="EXPRESSION", help=weights_help)
    into_help = "also make a token store of them, each as often as its weight says"
    parser.add_argument("--into", type=local_path, metavar="NEW.zarr", help=into_help)
    _finish(parser, _select)


def _add_database(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("database", metavar="FEATURES.db", type=local_path, help=_DATABASE_HELP)


def _finish(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    add_json_option(parser)
    parser.set_defaults(run=run)


def _import(arguments: argparse.Namespace) -> int:
    from ..storage.features.importing import ImportOptions, import_features
    from ..storage.features.records import RowOptions
    from ..storage.features.times import time_option

    given = arguments.event_time
    rows = RowOptions(
        features=tuple(arguments.feature),
        event_time=None if given is None else time_option("--event-time", given),
        by_text=arguments.store is not None,
    )
    options = ImportOptions(rows=rows, store=arguments.store)
    with StageProgress() as line:
        result = import_features(arguments.sources, arguments.database, options, partial(line.show, "import"))
    record = {
        "database": str(arguments.database),
        "records": result.num_records,
        "new_values": result.num_new,
        "known_values": result.num_known,
        **_facts(result.about),
    }
    text = f"{arguments.database}: {result.num_new:,} new values of {result.num_records:,} records"
    emit(arguments, record, text + (f", {result.num_known:,} were there" if result.num_known else ""))
    return 0


def _ids(arguments: argparse.Namespace) -> int:
    from ..storage.features.identity import write_ids

    with StageProgress() as line:
        count = write_ids(arguments.store, arguments.file, partial(line.show, "read"))
    record = {"store": str(arguments.store), "file": str(arguments.file), "documents": count}
    emit(arguments, record, f"{arguments.file}: ids of {count:,} documents")
    return 0


def _select(arguments: argparse.Namespace) -> int:
    from ..config.errors import UserError
    from ..storage.features.select import Question, select_documents
    from ..storage.features.selected_store import write_selected_store
    from ..storage.features.times import time_option

    question = Question(time_option("--as-of", arguments.as_of), arguments.where, arguments.weights)
    for path in (arguments.output, arguments.into):
        if path is not None and os.path.lexists(path):
            raise UserError(str(path), "exists already", "give another name, or remove it first")
        if path is not None and not path.parent.is_dir():
            raise UserError(str(path), f"{path.parent} is not a folder", "give a place in a folder that exists")
    with StageProgress() as line:
        selection = select_documents(arguments.store, arguments.database, question, partial(line.show, "read"))
        if arguments.into is not None:
            write_selected_store(arguments.store, selection, arguments.into, line.show)
    try:
        selection.write(arguments.output)
    except BaseException:
        if arguments.into is not None:
            shutil.rmtree(arguments.into)
        raise
    record = {**selection.record, "digest": selection.digest, "file": str(arguments.output)}
    taken, of = record["documents"], record["store"]["documents"]
    text = f"{arguments.output}: {taken:,} of {of:,} documents, {record['tokens']:,} tokens\ndigest {selection.digest}"
    emit(arguments, {**record, "into": str(arguments.into) if arguments.into else None}, text)
    return 0


def _lookup(arguments: argparse.Namespace) -> int:
    from ..storage.features.reader import FeatureReader
    from ..storage.features.times import format_time, time_option

    as_of = None if arguments.as_of is None else time_option("--as-of", arguments.as_of)
    with FeatureReader(arguments.database) as reader:
        known = reader.get_known(arguments.document, as_of)
    features = {name: {"value": each.value, "event_time": format_time(each.event_time)} for name, each in known.items()}
    lines = [f"{name:22} {each['value']!r} since {each['event_time']}" for name, each in features.items()]
    record = {"document": arguments.document.lower(), "features": features}
    emit(arguments, record, "\n".join(lines) or "nothing is known of this document")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from ..storage.features.database import open_readonly

    connection, about = open_readonly(arguments.database)
    connection.close()
    record = {"database": str(arguments.database), **_facts(about)}
    lines = [f"{name:22} {kind}" for name, kind in record["features"].items()]
    text = f"{arguments.database}: {about.num_values:,} values of {len(lines)} features, {len(about.imports)} imports"
    emit(arguments, record, "\n".join([text, *lines]))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from ..config.errors import FoundBad
    from ..storage.features.times import format_time
    from ..storage.features.verify import verify_features

    seed = time.time_ns() if arguments.seed is None else arguments.seed
    record: dict[str, Any] = {"database": str(arguments.database), "seed": seed}
    try:
        with StageProgress() as line:
            checked = verify_features(arguments.database, seed, partial(line.show, "verify"))
    except FoundBad as error:
        if arguments.json:
            emit(arguments, {**record, "good": False, "file": error.where, "problem": error.problem}, "")
        raise
    times = [format_time(each) for each in checked.times]
    record |= {"good": True, "documents": checked.num_documents, "times": times, **_facts(checked.about)}
    text = (
        f"{arguments.database}: good, {checked.about.num_values:,} values; join and look-up agree on "
        f"{checked.num_documents:,} documents at {len(times)} times (seed {seed})"
    )
    emit(arguments, record, text)
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from ..storage.features.feast_export import export_feast

    with StageProgress() as line:
        about = export_feast(arguments.database, arguments.folder, partial(line.show, "export"))
    record = {"database": str(arguments.database), "folder": str(arguments.folder), **_facts(about)}
    emit(arguments, record, f"{arguments.folder}: {about.num_values:,} values of {len(about.features)} features")
    return 0


def _facts(about: Any) -> dict[str, Any]:
    return {
        "features": {name: feature.kind for name, feature in about.features.items()},
        "values": about.num_values,
        "imports": len(about.imports),
    }
