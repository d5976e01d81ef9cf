"""`trainwright data copy SOURCE TARGET`: a store from and to folders and object stores, whole or not there."""

import argparse
from typing import Any

from .output import add_json_option, emit
from .places import location
from .progress import StageProgress


def add_copy(actions: Any) -> None:
    """Declare `data copy`."""
    text = "copy a store from and to a folder or an object store; the same command goes on after a kill"
    copy = actions.add_parser("copy", help=text)
    copy.add_argument("source", metavar="SOURCE", type=location, help="folder of a token store, or its URL")
    copy.add_argument("target", metavar="TARGET", type=location, help="folder or URL to make")
    add_json_option(copy)
    copy.set_defaults(run=_copy)


def _copy(arguments: argparse.Namespace) -> int:
    from ..storage.loading.copying import contents_of, copy_store
    from .data_build import facts

    contents = contents_of(arguments.source)
    with StageProgress() as line:
        copied = copy_store(arguments.source, contents, arguments.target, line.show)
    record = {
        "source": str(arguments.source),
        "store": str(arguments.target),
        **facts(contents.info),
        "copied_bytes": copied,
    }
    tokens = f"{contents.info.tokens:,} tokens in {len(contents.files) + 1} files"
    text = f"{arguments.target}: whole, {tokens}; {copied:,} bytes copied, all {contents.size_bytes:,} read back"
    emit(arguments, record, text)
    return 0
