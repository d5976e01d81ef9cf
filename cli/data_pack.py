"""`trainwright data pack`: the index by which whole documents share samples."""

import argparse
from typing import Any

from .output import add_json_option, emit
from .places import local_path


def add_pack(actions: Any) -> None:
    """Declare `data pack`."""
    pack = actions.add_parser("pack", help="let whole documents share samples, for data.packing: best_fit")
    pack.add_argument("store", metavar="STORE", type=local_path, help="folder of a token store")
    length_help = "the run's data.sequence_length"
    pack.add_argument("--sequence-length", type=int, required=True, metavar="N", help=length_help)
    add_json_option(pack)
    pack.set_defaults(run=_pack)


def _pack(arguments: argparse.Namespace) -> int:
    from ..storage.loading.packing import pack_store, packing_folder

    info = pack_store(arguments.store, arguments.sequence_length)
    places = info.num_samples * (info.sequence_length + 1)
    record = {
        "store": str(arguments.store),
        "folder": str(packing_folder(arguments.store, arguments.sequence_length, info.generation)),
        "samples": info.num_samples,
        "pieces": info.num_pieces,
        "cut_documents": info.cut_documents,
        "dropped_documents": info.dropped_documents,
        "padding": info.padding,
        "filled": 1 - info.padding / places if places else 0.0,
    }
    text = f"{record['folder']}: {info.num_samples:,} samples, {record['filled']:.2%} filled; "
    text += f"{info.cut_documents:,} documents were longer than one"
    emit(arguments, record, text)
    return 0
