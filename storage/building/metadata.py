"""The last files of a store in its building folder: tokenizer, inventory.json and, last of all, zarr.json."""

from dataclasses import replace
from pathlib import Path

from ..durable import sync, write_durably
from ..tokens.inventory import Inventory, read_inventory, take_inventory, write_inventory
from ..tokens.loss_mask import mask_info, trained_in
from ..tokens.reader import open_store
from ..tokens.shards import ShardSummary
from ..tokens.store import LOSS_MASK, METADATA, TOKENIZER, Generation, StoreInfo, read_info, write_info, write_mask_info
from .layout import Layout
from .plan import Plan
from .site import shape_of, shard_summary
from .workspace import Workspace


def write_store_info(space: Workspace, plan: Plan, layout: Layout) -> StoreInfo:
    """Write what is said of the store, or of its next generation, whose shards are all there."""
    old = None if plan.origin is None else read_info(Path(plan.origin.store))
    info = _first_info(plan, layout) if old is None else _next_info(old, layout)
    masks = _finish_mask(space, plan, layout, info) if plan.masked else []
    inventory = _new_files(space, plan, layout, masks)
    if plan.masked:
        info = replace(info, trained_tokens=_trained_tokens(space, plan, layout, old))
    if plan.origin is not None and old is not None:
        before = read_inventory(Path(plan.origin.store), old)
        kept = before.shards[: plan.origin.tokens // old.shard_tokens]
        inventory = Inventory(kept + inventory.shards, dict(sorted({**before.files, **inventory.files}.items())))
    size, digest = write_inventory(space.store, inventory)
    info = replace(info, size_bytes=inventory.size_bytes, inventory_bytes=size, inventory_digest=digest)
    write_info(space.store, info)
    for folder in [path for path in space.store.rglob("*") if path.is_dir()] + [space.store]:
        sync(folder)
    return info


def _finish_mask(space: Workspace, plan: Plan, layout: Layout, info: StoreInfo) -> list[str]:
    """Write the loss mask's zarr.json; its new files, by path in the store."""
    write_mask_info(space.store / LOSS_MASK, mask_info(info))
    shards = layout.shards(plan.options["shard_tokens"])
    return [f"{LOSS_MASK}/{METADATA}", *(f"{LOSS_MASK}/c/{number}" for number in shards)]


def _trained_tokens(space: Workspace, plan: Plan, layout: Layout, old: StoreInfo | None) -> int:
    """Trained tokens of the store as it will be."""
    shard_tokens, trained = plan.options["shard_tokens"], 0
    shards = layout.shards(shard_tokens)
    for number in shards:
        summary = shard_summary(space, number, "mask")
        assert summary is not None
        trained += trained_in(summary)
    if plan.origin is None or old is None:
        return trained
    assert old.trained_tokens is not None
    mask = open_store(Path(plan.origin.store)).loss_mask
    assert mask is not None
    again = mask.read(shards.start * shard_tokens, layout.first_token)  # old tokens of the first shard that is replaced
    return trained + old.trained_tokens - int(again.sum())


def _new_files(space: Workspace, plan: Plan, layout: Layout, masks: list[str]) -> Inventory:
    shards: list[ShardSummary] = []
    for number in layout.shards(plan.options["shard_tokens"]):
        summary = shard_summary(space, number)
        assert summary is not None
        shards.append(summary)
    names: list[str] = []
    if plan.origin is None:
        (space.store / TOKENIZER).mkdir(exist_ok=True)
        names = sorted(path.name for path in space.tokenizer.iterdir())
        for name in names:
            write_durably(space.store / TOKENIZER / name, (space.tokenizer / name).read_bytes())
    files = [*(f"{TOKENIZER}/{name}" for name in names), *layout.document_files, *masks]
    return take_inventory(space.store, tuple(shards), files)


def _first_info(plan: Plan, layout: Layout) -> StoreInfo:
    shape = shape_of(plan)
    return StoreInfo(
        tokens=layout.tokens,
        documents=layout.documents,
        dtype=shape.dtype,
        vocab_size=shape.vocab_size,
        tokenizer_fingerprint=plan.fingerprint,
        end_of_document=plan.vocabulary.end_of_document,
        chunk_tokens=shape.chunk_tokens,
        shard_tokens=shape.shard_tokens,
        compression=shape.compression,
        generation=1,
        size_bytes=0,
        inventory_bytes=0,
        inventory_digest="",
        deduplication=_deduplication(plan, layout),
    )


def _next_info(old: StoreInfo, layout: Layout) -> StoreInfo:
    return replace(
        old,
        tokens=layout.tokens,
        documents=layout.documents,
        generation=old.generation + 1,
        earlier=(*old.earlier, Generation(old.generation, old.tokens, old.documents)),
        pending=False,
    )


def _deduplication(plan: Plan, layout: Layout) -> dict[str, object] | None:
    kind = plan.options["deduplicate"]
    if kind == "none":
        return None
    counts = {"dropped_exact": layout.exact, "dropped_near": layout.near}
    threshold = {"near_threshold": plan.options["near_threshold"]} if kind == "near" else {}
    return {"kind": kind, **threshold, **counts}
