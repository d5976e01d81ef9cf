"""Layouts that work, but cost more than they need: each rule in one line, with what costs less. No torch."""

from .layout import Layout
from .model import ModelShape
from .run import RunConfig

_MOST_IDLE = 1 / 3
_UNEVEN = 1.34


def unwise(run: RunConfig, model: ModelShape, layout: Layout) -> list[str]:
    """What to think about again: field and value, why, and what is better."""
    parallel, cluster = run.parallelism, run.cluster
    found = []
    per_node = cluster.ranks_per_node
    if layout.tensor > per_node:
        found.append(
            f"parallelism.tensor: {layout.tensor} reaches over nodes of {per_node} ranks, and every layer waits for "
            f"the network; use tensor {_divisor(per_node, layout.tensor)}, and pipeline for the rest"
        )
    elif layout.tensor * layout.context > per_node and layout.context > 1:
        found.append(
            f"parallelism.context: {layout.context} x tensor {layout.tensor} reaches over nodes of {per_node} ranks, "
            "and every layer gathers keys and values over the network; use a smaller context, or recompute"
        )
    if parallel.engine == "megatron":
        if layout.tensor > 1 and not parallel.sequence:
            found.append(
                f"parallelism.sequence: false at tensor {layout.tensor} keeps the same activations on all its ranks; "
                "set parallelism.sequence=true"
            )
        if layout.data * layout.context > 1 and parallel.zero == 0 and run.train.optimizer.name == "adamw":
            found.append(
                f"parallelism.zero: 0 keeps the optimizer's state {layout.data * layout.context} times; zero 1 gives "
                "the same results, and shares it"
            )
    if layout.tensor > model.num_kv_heads:
        found.append(
            f"parallelism.tensor: {layout.tensor} is more than the model's {model.num_kv_heads} key-value heads, so "
            f"ranks hold copies of them; use tensor {model.num_kv_heads}"
        )
    return found + _pipeline(run, layout)


def _pipeline(run: RunConfig, layout: Layout) -> list[str]:
    """Stages that wait: too few micro batches (Narayanan et al. 2021: (p - 1) / (v m + p - 1)), or uneven layers."""
    stages, chunks = layout.pipeline, layout.chunk_layers
    if stages == 1:
        return []
    found = []
    micro = run.train.global_batch_size // (run.train.micro_batch_size * layout.data)
    idle = (stages - 1) / (layout.virtual_pipeline * micro + stages - 1)
    if idle > _MOST_IDLE:
        better = f"use {2 * stages} or more (train.global_batch_size, or a smaller train.micro_batch_size)"
        found.append(
            f"train.global_batch_size: {run.train.global_batch_size} is {micro} micro batches for {stages} pipeline "
            f"stages, which wait {idle:.0%} of the time; {better}"
        )
    per_stage = [sum(chunks[stage::stages]) for stage in range(stages)]
    if chunks and max(per_stage) * stages > _UNEVEN * sum(chunks):
        found.append(
            f"parallelism.stage_layers: stages of {per_stage} layers, and all wait for the one with {max(per_stage)}; "
            "give stages nearly the same number"
        )
    return found


def _divisor(total: int, below: int) -> int:
    """The largest divisor of `total` that divides `below` too."""
    return max(size for size in range(1, total + 1) if total % size == 0 and below % size == 0)
