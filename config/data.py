"""The `data` section: which token stores are read, and in what order."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from .base import Section
from .fill_in_the_middle import FillInTheMiddle
from .stores import Store


class Source(Store):
    """One token store and its share of the mixture."""

    weight: float = Field(default=1.0, gt=0)
    """Share of the samples that come from this store, relative to the other weights."""


class Stage(Section):
    """A part of the training in which the stores have shares of their own."""

    until_tokens: int | None = Field(default=None, ge=1)
    """Tokens of the whole run, counted from its start, at which the next stage begins: data.sequence_length for each
    sample, padding too; rounded up to whole samples. The last stage has none: it has no end."""
    weights: dict[str, Annotated[float, Field(ge=0)]] | None = None
    """Share of each store, by its name, relative to the others; a store that is not named has none. Those of
    `data.train`, if not given."""

    @field_validator("until_tokens", mode="before")
    @classmethod
    def _whole(cls, tokens: Any) -> Any:
        return int(tokens) if isinstance(tokens, float) and tokens.is_integer() else tokens  # 2e12


class DataConfig(Section):
    """Where samples come from."""

    train: list[Source] = Field(min_length=1)
    """Token stores to train on, with their weights."""
    stages: list[Stage] = Field(default=[], max_length=100)
    """Weights that change with the tokens read so far; if there are none, those of `data.train` hold throughout."""
    sequence_length: int = Field(ge=2)
    """Length of a sample in tokens."""
    seed: int = Field(default=1234, ge=0, lt=2**63)
    """Seed of the data order; rank, layout and batch size never change the order."""
    window: int | None = Field(default=None, ge=1)
    """Samples per shuffle window; the whole store if not given."""
    read: Literal["auto", "map", "plain"] = "auto"
    """How shards are read: mapped into memory or plainly; `auto` maps on local disks and measures on shared ones."""
    stage_to: str | None = None
    """Folder on each node's own disk into which the stores are copied before the first step, once per node, and from
    which they are read; variables such as $TMPDIR are the node's. Copies stay, and the next run uses them."""
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
    fill_in_the_middle: FillInTheMiddle = FillInTheMiddle()
    """Documents whose middle is predicted from what stands before and after it; off if not given."""
    prompt_mask: bool = True
    """Predict only what a store's loss mask says, which `data build --chat` writes: the assistant's tokens. Stores
    without one are predicted whole; `false` does so with all."""
    document_mask: bool = False
    """Keep documents apart: attention stays inside a document, and no token is asked to predict the next document."""
    reset_positions: bool = False
    """Count positions anew from 0 in each document, or the part of one that a sample has; needs document_mask."""

    @field_validator("stage_to")
    @classmethod
    def _on_every_node(cls, folder: str | None) -> str | None:
        if folder is not None and not folder.startswith(("/", "$")):
            raise ValueError("not the same on every node: give an absolute path, or one that begins with a variable")
        return folder

    @field_validator("train")
    @classmethod
    def _stores_differ(cls, sources: list[Source]) -> list[Source]:
        names = [source.store for source in sources]
        if len(set(names)) != len(names):
            raise ValueError("a store is named twice; give it once, with the sum of the weights")
        return sources

    @field_validator("reset_positions")
    @classmethod
    def _apart_if_reset(cls, reset: bool, info: ValidationInfo) -> bool:
        if reset and not info.data.get("document_mask"):
            raise ValueError("needs data.document_mask: true, since positions would repeat among tokens that attend")
        return reset

    @property
    def stage_firsts(self) -> list[int]:
        """First sample of each stage: where the one before ends, rounded up; [0] without stages."""
        ends = [-(-(stage.until_tokens or 0) // self.sequence_length) for stage in self.stages[:-1]]
        return [0, *ends]

    @model_validator(mode="after")
    def _names_differ(self) -> "DataConfig":
        names = [source.label for source in self.train]
        for number, source in enumerate(self.train):
            if names.index(source.label) < number and (self.stages or source.name):
                raise ValueError(f"train.{number}.name: {source.label!r} is another store's name too")
        return self

    @model_validator(mode="after")
    def _stages_follow(self) -> "DataConfig":
        firsts = self.stage_firsts
        for number, stage in enumerate(self.stages):
            field, last = f"stages.{number}.until_tokens", number == len(self.stages) - 1
            if last and stage.until_tokens is not None:
                raise ValueError(f"{field}: {stage.until_tokens}, but the last stage has no end")
            if not last and stage.until_tokens is None:
                raise ValueError(f"{field}: is missing, but another stage follows")
            if not last and firsts[number + 1] <= firsts[number]:
                raise ValueError(f"{field}: {stage.until_tokens} leaves no sample to this stage")
        return self

    @model_validator(mode="after")
    def _weights_fit(self) -> "DataConfig":
        labels = [source.label for source in self.train]
        for number, stage in enumerate(self.stages):
            field = f"stages.{number}.weights"
            for name in stage.weights or ():
                if name not in labels:
                    raise ValueError(f"{field}: {name!r} is no store of data.train ({', '.join(labels)})")
            if stage.weights is not None and not any(stage.weights.values()):
                raise ValueError(f"{field}: {stage.weights} gives no store a share")
        return self

    @model_validator(mode="after")
    def _all_is_used(self) -> "DataConfig":
        given = [stage.weights for stage in self.stages if stage.weights is not None]
        if not given or len(given) < len(self.stages):
            return self
        for number, source in enumerate(self.train):
            if source.weight != 1:
                raise ValueError(f"train.{number}.weight: {source.weight}, but every stage has weights of its own")
            if not any(weights.get(source.label) for weights in given):
                raise ValueError(f"train.{number}.store: no stage gives {source.label!r} a share")
        return self
