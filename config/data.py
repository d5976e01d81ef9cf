"""The `data` section: which token stores are read, and in what order."""

from typing import Literal

from pydantic import Field, field_validator

from .base import Section


class Source(Section):
    """One token store and its share of the mixture."""

    store: str
    """Folder of a token store, relative to the run file."""
    generation: int | None = Field(default=None, ge=1)
    """Generation of the store (`data append` makes the next); the newest, if not given, when the run is submitted."""
    weight: float = Field(default=1.0, gt=0)
    """Share of the samples that come from this store, relative to the other weights."""


class DataConfig(Section):
    """Where samples come from."""

    train: list[Source] = Field(min_length=1)
    """Token stores to train on, with their weights."""
    sequence_length: int = Field(ge=2)
    """Length of a sample in tokens."""
    seed: int = Field(default=1234, ge=0, lt=2**63)
    """Seed of the data order; rank, layout and batch size never change the order."""
    window: int | None = Field(default=None, ge=1)
    """Samples per shuffle window; the whole store if not given."""
    read: Literal["auto", "map", "plain"] = "auto"
    """How shards are read: mapped into memory or plainly; `auto` maps on local disks and measures on shared ones."""
    on_bad_chunk: Literal["stop", "replace"] = "stop"
    """What comes of a chunk that fails its checksum. The run stops, and the ledger says which. Gone on with under
    `replace`, it reads other samples than those that touch such chunks, the same on every rank."""
    packing: Literal["split", "best_fit"] = "split"
    """How documents become samples: `split` takes them one after another and cuts at every sequence_length tokens;
    `best_fit` puts whole documents together that fill a sample best, by the index that `data pack` makes."""
    quality: Literal["stop", "warn", "off"] = "stop"
    """What `submit` does about a store whose ids were cut to 16 bits, or whose unknown token is above max_unknown."""
    max_unknown: float = Field(default=0.05, ge=0.03, le=1)
    """Largest share of a shard's tokens that may be the tokenizer's unknown token."""
    document_mask: bool = False
    """Keep documents apart: attention stays inside a document, and no token is asked to predict the next document."""

    @field_validator("train")
    @classmethod
    def _stores_differ(cls, sources: list[Source]) -> list[Source]:
        names = [source.store for source in sources]
        if len(set(names)) != len(names):
            raise ValueError("a store is named twice; give it once, with the sum of the weights")
        return sources
