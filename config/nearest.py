"""The valid layouts nearest to one that breaks a rule, found by trying: each is checked by the rules themselves."""

import math
from collections.abc import Callable, Iterator
from itertools import combinations, islice
from typing import Any, NamedTuple

from pydantic import BaseModel

from .layout import nearly_even
from .model import ModelShape
from .run import RunConfig

_MOST_TRIED = 4000
_TOGGLE, _OTHER_RANKS, _OTHER_ENGINE = 0.4, 1.5, 3.0  # in doublings of a size

_NEUTRAL: dict[str, Any] = {
    "parallelism.stage_layers": None,
    "parallelism.transformer_engine": "auto",
    "parallelism.offload": "none",
    "parallelism.offload_folder": None,
    "train.recompute": "none",
    "train.router.aux_loss_coef": None,
    "train.router.z_loss_coef": 0.0,
    "train.router.bias_update_rate": None,
}


class _Change(NamedTuple):
    cost: float
    field: str
    value: Any


def nearest(run: RunConfig, model: ModelShape, valid: Callable[[RunConfig], bool], most: int = 3) -> list[str]:
    """Up to `most` sets of overrides, nearest first, that make `run` valid; [] if one or two changes do not.

    Nearest is the least sum of doublings and halvings; other switches, ranks and engines count as more.
    """
    changes = sorted(_changes(run, model), key=lambda change: (change.cost, change.field, str(change.value)))
    found: list[tuple[_Change, ...]] = []
    for tried in islice(_sets(changes), _MOST_TRIED):
        if any(set(before) <= set(tried) for before in found):
            continue  # what works already, and something more
        if valid(_with(run, tried)):
            found.append(tried)
            if len(found) == most:
                break
    return [" ".join(f"{change.field}={_text(change.value)}" for change in each) for each in found]


def _sets(changes: list[_Change]) -> Iterator[tuple[_Change, ...]]:
    """Single changes, then pairs, each the cheapest first."""
    yield from ((change,) for change in changes)
    pairs = [pair for pair in combinations(changes, 2) if pair[0].field != pair[1].field]
    yield from sorted(pairs, key=lambda pair: pair[0].cost + pair[1].cost)


def _changes(run: RunConfig, model: ModelShape) -> Iterator[_Change]:
    parallel = run.parallelism
    for field, choices in _sizes(run, model).items():
        now = _value(run, field)
        yield from (_Change(abs(math.log2(choice / now)), field, choice) for choice in sorted(choices) if choice != now)
    yield _Change(_TOGGLE, "parallelism.sequence", not parallel.sequence)
    chunks = parallel.pipeline * parallel.virtual_pipeline
    if chunks <= model.num_layers and parallel.pipeline > 1:
        yield _Change(_TOGGLE, "parallelism.stage_layers", tuple(nearly_even(model.num_layers, chunks)))
    yield from (_Change(_TOGGLE, field, value) for field, value in _NEUTRAL.items() if _value(run, field) != value)
    yield from (
        _Change(_TOGGLE * abs(zero - parallel.zero), "parallelism.zero", zero)
        for zero in range(4)
        if zero != parallel.zero
    )
    if run.train.optimizer.name != "adamw":
        yield _Change(_OTHER_ENGINE, "train.optimizer.name", "adamw")
    other = "deepspeed" if parallel.engine == "megatron" else "megatron"
    yield _Change(_OTHER_ENGINE, "parallelism.engine", other)
    model_ranks = parallel.tensor * parallel.context * parallel.pipeline
    per_node, nodes = run.cluster.ranks_per_node, run.cluster.nodes
    for field, now, others, extra in (("ranks_per_node", per_node, nodes, 0.0), ("nodes", nodes, per_node, 0.1)):
        unit = model_ranks // math.gcd(model_ranks, others)
        for good in {-(-now // unit) * unit, max(1, now // unit) * unit, now * 2} - {now}:
            yield _Change(_OTHER_RANKS + extra + abs(math.log2(good / now)), f"cluster.{field}", good)


def _sizes(run: RunConfig, model: ModelShape) -> dict[str, set[int]]:
    """Values worth a try of every field that is a size."""
    parallel, train = run.parallelism, run.train
    model_ranks = parallel.tensor * parallel.context * parallel.pipeline
    per_pass = train.micro_batch_size * max(1, run.cluster.world_size // model_ranks)
    lengths = {
        unit
        for shares in (1, 2, parallel.tensor, 2 * parallel.tensor)
        for unit in _around(run.data.sequence_length, shares * parallel.context)
    }
    sizes = {
        "parallelism.tensor": _divisors(model.num_heads),
        "parallelism.pipeline": _divisors(model.num_layers),
        "parallelism.virtual_pipeline": {1, 2, 3, 4},
        "parallelism.context": {1 << power for power in range(7)} | {parallel.context - 1, parallel.context + 1},
        "train.micro_batch_size": _divisors(train.global_batch_size),
        "train.global_batch_size": _around(train.global_batch_size, per_pass)
        | _around(train.global_batch_size, per_pass * parallel.pipeline),
        "data.sequence_length": {length for length in lengths if length <= model.max_positions} | {model.max_positions},
        "parallelism.expert": {1},
        "parallelism.expert_tensor": {1, parallel.tensor},
    }
    if model.experts is not None:
        sizes["parallelism.expert"] = _divisors(model.experts.num_experts)
    return {field: {size for size in choices if size >= 1} for field, choices in sizes.items()}


def _divisors(total: int) -> set[int]:
    return {size for size in range(1, min(total, 1024) + 1) if total % size == 0}


def _around(value: int, unit: int) -> set[int]:
    """The multiples of `unit` below and above."""
    return {value // unit * unit, value // unit * unit + unit}


def _value(run: RunConfig, field: str) -> Any:
    found: Any = run
    for name in field.split("."):
        found = getattr(found, name)
    return found


def _with(run: RunConfig, changes: tuple[_Change, ...]) -> RunConfig:
    changed: BaseModel = run
    for change in changes:
        changed = _replaced(changed, change.field.split("."), change.value)
    assert isinstance(changed, RunConfig)
    return changed


def _replaced(section: BaseModel, names: list[str], value: Any) -> BaseModel:
    if len(names) > 1:
        value = _replaced(getattr(section, names[0]), names[1:], value)
    return section.model_copy(update={names[0]: list(value) if isinstance(value, tuple) else value})


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(str(each) for each in value)}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
