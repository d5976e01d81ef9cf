"""`trainwright data inspect` and `data order`: what a store holds, how to read it, and where a sample comes from."""

import argparse
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .data_build import facts
from .output import add_json_option, emit
from .places import location

if TYPE_CHECKING:
    from ..storage.tokens.reader import TokenStore

_EXCERPT_TOKENS = 64


def add_inspect(actions: Any) -> None:
    """Declare `data inspect`."""
    inspect = actions.add_parser("inspect", help="show what a store holds, and how it is best read")
    inspect.add_argument("store", metavar="STORE", type=location, help="folder of a token store, or its URL")
    advise_help = "measure how fast the store is read where it lies, and say which data.window suits it"
    inspect.add_argument("--advise", action="store_true", help=advise_help)
    length_help = "tokens of a sample, for --advise (2048)"
    inspect.add_argument("--sequence-length", type=int, default=2048, metavar="N", help=length_help)
    add_json_option(inspect)
    inspect.set_defaults(run=_inspect)


def add_order(actions: Any) -> None:
    """Declare `data order`."""
    order = actions.add_parser("order", help="say which documents the samples of a run come from")
    order.add_argument("run_file", metavar="RUN.yaml", help="run file")
    order.add_argument("overrides", nargs="*", metavar="key=value", help="fields to change")
    explain_help = (
        "position in the data order, from 0; step S of a run reads (S-1) * global_batch_size and what follows"
    )
    order.add_argument("--explain", type=int, required=True, metavar="POSITION", help=explain_help)
    order.add_argument("--count", type=int, default=1, metavar="N", help="how many positions (1)")
    add_json_option(order)
    order.set_defaults(run=_order)


def add_compare(actions: Any) -> None:
    """Declare `data compare`."""
    compare = actions.add_parser("compare", help="say how far the texts of stores of one tokenizer lie apart")
    compare.add_argument("stores", nargs="+", metavar="STORE", type=location, help="two or more token stores")
    add_json_option(compare)
    compare.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from ..config.errors import UserError
    from ..storage.tokens.inventory import read_inventory
    from ..storage.tokens.quality import divergence, sketch_of
    from ..storage.tokens.reader import open_store

    if len(arguments.stores) < 2:
        raise UserError("STORE", "one store alone has nothing to be compared with", "give two or more")
    stores = [open_store(path) for path in arguments.stores]
    for store in stores[1:]:
        if store.info.tokenizer_fingerprint != stores[0].info.tokenizer_fingerprint:
            problem = f"has another tokenizer than {stores[0].path}, so their ids are not alike"
            raise UserError(f"STORE {store.path}", problem, "compare stores of one tokenizer")
    sketches = [sketch_of(read_inventory(store.path, store.info)) for store in stores]
    rows, lines = [], []
    for (one, first), (other, second) in combinations(zip(stores, sketches, strict=True), 2):
        bits = divergence(first, second)
        rows.append({"one": str(one.path), "other": str(other.path), "divergence": bits})
        lines.append(f"{bits:.4f}  {one.path}  {other.path}")
    emit(arguments, {"pairs": rows}, "\n".join(lines))
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from ..config.errors import UserError
    from ..storage.loading.advice import advise
    from ..storage.tokens.reader import open_store
    from ..storage.tokens.tokenizer import open_tokenizer
    from ..storage.tokens.verify import check_presence

    if arguments.sequence_length < 2:
        raise UserError("--sequence-length", f"{arguments.sequence_length} is below 2", "give the tokens of a sample")
    store = open_store(arguments.store)
    check_presence(store)
    first = store.read(0, min(_EXCERPT_TOKENS, store.num_tokens)).tolist()
    record = {
        "store": str(arguments.store),
        **facts(store.info),
        **_quality(store),
        "first_text": open_tokenizer(arguments.store).decode(first),
    }
    if arguments.advise:
        advice = advise(arguments.store, arguments.sequence_length)
        place = advice.place
        record |= {
            "filesystem": place.filesystem,
            "read": place.how,
            "map_ms": _rounded(place.map_ms),
            "plain_ms": _rounded(place.plain_ms),
            "sequential_mb_per_s": round(advice.sequential_mb_per_s),
            "window": advice.window,
            "why": advice.why,
        }
    emit(arguments, record, "\n".join(f"{name:22} {_shown(value)}" for name, value in record.items()))
    return 0


def _order(arguments: argparse.Namespace) -> int:
    from ..config.errors import UserError
    from ..config.loading import load_run
    from ..storage.loading.training_data import TrainingData

    for option, value, least in (("--explain", arguments.explain, 0), ("--count", arguments.count, 1)):
        if value < least:
            raise UserError(option, f"{value} is below {least}", f"give a number from {least} on")
    data = TrainingData.open(load_run(Path(arguments.run_file), arguments.overrides).data)
    origins = data.explain(arguments.explain, arguments.count)
    lines = []
    for origin in origins:
        place = f"stage {origin.stage}, {origin.source}, epoch {origin.epoch}"
        lines.append(f"position {origin.position}: {place}, sample {origin.sample} of {origin.store}")
        for part in origin.documents:
            where = f"document {part.document}, its tokens {part.first} to {part.last} (at {part.start:,})"
            how = f", its middle moved ({part.fill_in_the_middle})" if part.fill_in_the_middle else ""
            lines.append(f"  {where}{how}: {part.text!r}")
    emit(arguments, {"samples": [origin.record() for origin in origins]}, "\n".join(lines))
    return 0


def _quality(store: "TokenStore") -> dict[str, Any]:
    from ..storage.tokens.quality import quality_of

    quality = quality_of(store)
    return {
        "unknown_share": _rounded(quality.unknown),
        "commonest_share": round(quality.flood, 4),
        "commonest_token": quality.flood_token,
        "shard_drift": round(quality.drift, 4),
        "cut_ids": quality.cut_ids,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int):
        return repr(value) if isinstance(value, str) and "\n" in value else str(value)
    return f"{value:,}"
