"""Selecting documents of a store by their features as they were at a time."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config.errors import UserError
from ..tokens.reader import TokenStore, open_store
from .as_of import join_as_of
from .columns import DTYPES, Column
from .database import open_readonly
from .evaluation import evaluate
from .expression import Expression, parse
from .identity import Ids, Progress, document_starts, store_ids
from .selection import FORMAT, VERSION, Selection, Weights, canonical
from .times import format_time
from .values import BOOLEAN, INTEGER, NUMBER, TEXT

MAX_WEIGHT = 1000.0
_SHOWN_VALUES = 20


@dataclass(frozen=True)
class Question:
    """What is asked."""

    as_of: int
    """Microseconds since 1970 UTC."""
    where: str
    """Which documents: an expression that is true for them."""
    weights: str = "1"
    """The weight of each of them."""


def select_documents(
    store_path: Path, database: Path, question: Question, progress: Progress = lambda done, total: None
) -> Selection:
    """Decide which documents of a token store are taken, by the features that were known at a time.

    The same documents, values and question give the same digest. Raises UserError for an expression that is wrong, or
    takes nothing; FoundBad naming a damaged file.
    """
    connection, about = open_readonly(database)
    try:
        kinds = {name: feature.kind for name, feature in about.features.items()}
        where, weights = parse("--where", question.where, kinds), parse("--weights", question.weights, kinds)
        _check_types(where, weights, kinds)
        store = open_store(store_path)
        try:
            ids = store_ids(store, progress)
            names = sorted({*where.names, *weights.names})
            columns = join_as_of((connection, about), database, ids, names, question.as_of)
            answer = evaluate(where, columns), evaluate(weights, columns)
            found = _weights(*answer, columns, len(ids))
            record = _record(store, ids, question, columns, found) | _unknown(*answer, len(ids))
        finally:
            store.close()
    finally:
        connection.close()
    return Selection(record, found)


def _check_types(where: Expression, weights: Expression, kinds: Mapping[str, str]) -> None:
    """Evaluate both over no documents at all: types are wrong or right before anything is read."""
    empty = {name: Column(kind, np.zeros(0, DTYPES[kind]), np.zeros(0, bool), ("",)) for name, kind in kinds.items()}
    if evaluate(where, empty).kind != BOOLEAN:
        remedy = "compare something: quality > 0.5, language == 'en'"
        raise where.error(where.tree, "neither true nor false", remedy)
    if evaluate(weights, empty).kind not in (INTEGER, NUMBER):
        raise weights.error(weights.tree, "not a number", "give a number or a feature that is one")


def _weights(chosen: Column, given: Column, columns: Mapping[str, Column], documents: int) -> Weights:
    """Weights [documents]; 0 where the answer is not true, or where it or the weight is not known."""
    taken = np.broadcast_to(chosen.values & chosen.known & given.known, documents)
    result = np.where(taken, given.values.astype(np.float64), 0.0)
    wrong = np.flatnonzero((result < 0) | (result > MAX_WEIGHT))
    if len(wrong):
        problem = f"document {wrong[0]} gets {result[wrong[0]]:g}, and {len(wrong)} do not get 0 to {MAX_WEIGHT:g}"
        raise UserError("--weights", problem, "use min(..., 2) and max(..., 0), for example")
    if not result.any():
        known = sum(int(column.known.sum()) for column in columns.values())
        problem = f"takes none of {documents} documents ({known} values of {len(columns)} features are known of them)"
        remedy = "check the expression, the time, and that the ids were made with this store's tokenizer"
        raise UserError("--where", problem, remedy)
    return result + 0.0


def _unknown(chosen: Column, given: Column, documents: int) -> dict[str, int]:
    """How many documents are left out since something is not known of them."""
    unweighted = chosen.values & chosen.known & ~given.known
    return {
        "undecided": int(np.broadcast_to(~chosen.known, documents).sum()),
        "without_weight": int(np.broadcast_to(unweighted, documents).sum()),
    }


def _record(
    store: TokenStore, ids: Ids, question: Question, columns: Mapping[str, Column], weights: Weights
) -> dict[str, Any]:
    lengths = np.diff(document_starts(store))
    taken = weights > 0
    info = store.info
    return {
        "format": FORMAT,
        "version": VERSION,
        "as_of": format_time(question.as_of),
        "where": question.where.strip(),
        "weights": question.weights.strip(),
        "store": {
            "tokenizer_fingerprint": info.tokenizer_fingerprint,
            "generation": info.generation,
            "documents": info.documents,
            "tokens": info.tokens,
            "documents_sha256": hashlib.sha256(ids.tobytes()).hexdigest(),
        },
        "features": {name: _summary(column, taken, lengths) for name, column in columns.items()},
        "features_sha256": _values_digest(columns),
        "documents": int(taken.sum()),
        "tokens": int(lengths[taken].sum()),
        # Exactly rounded, so that no machine adds up to something else.
        "weighted_tokens": math.fsum((weights[taken] * lengths[taken]).tolist()),
    }


def _summary(column: Column, taken: NDArray[np.bool_], lengths: NDArray[np.int64]) -> dict[str, Any]:
    """How many documents have a value, and what the values are: counts of the commonest, or the range."""
    chosen = column.known & taken
    summary: dict[str, Any] = {"type": column.kind, "known": int(column.known.sum()), "taken": int(chosen.sum())}
    if column.kind in (INTEGER, NUMBER):
        values = column.values[chosen]
        return {**summary, "range": [values.min().item(), values.max().item()] if len(values) else None}
    names = column.texts if column.kind == TEXT else ("false", "true")
    places = column.values.astype(np.int64)
    documents = np.bincount(places[column.known], minlength=len(names))
    counts = Counter({name: int(count) for name, count in zip(names, documents, strict=True) if count})
    shown = sorted(counts, key=lambda name: (-counts[name], name))[:_SHOWN_VALUES]
    counted: dict[str, dict[str, int]] = {}
    for name in shown:
        rows = chosen & (places == names.index(name))
        counted[name] = {
            "documents": counts[name],
            "taken": int(rows.sum()),
            "tokens_taken": int(lengths[rows].sum()),
        }
    return {**summary, "values": counted, "other_values": len(counts) - len(shown)}


def _values_digest(columns: Mapping[str, Column]) -> str:
    """SHA-256 over the values that were looked at: per feature its name and type, which are known, and their values."""
    hasher = hashlib.sha256()
    for name, column in sorted(columns.items()):
        hasher.update(canonical([name, column.kind, list(column.texts)]) + np.packbits(column.known).tobytes())
        values = np.where(column.known, column.values, np.zeros(1, column.values.dtype))
        dtype = "<f8" if column.kind == NUMBER else "u1" if column.kind == BOOLEAN else "<i8"
        hasher.update(values.astype(dtype).tobytes())
    return hasher.hexdigest()
