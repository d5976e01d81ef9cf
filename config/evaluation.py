"""The `evaluation` section: held-out data, and how often the loss on it is measured."""

from pathlib import PurePath

from pydantic import Field, field_validator, model_validator

from .base import Section
from .urls import check_url, is_url


class HeldOut(Section):
    """A token store that is not trained on."""

    store: str
    """Folder of a token store, relative to the run file, or its URL; its tokenizer is that of `data.train`."""
    generation: int | None = Field(default=None, ge=1)
    """Generation of the store; the newest, if not given, when the run is submitted."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """What metrics call it; its folder's name without `.zarr`, if not given."""

    @field_validator("store")
    @classmethod
    def _place(cls, store: str) -> str:
        return check_url(store) if is_url(store) else store

    @property
    def label(self) -> str:
        """Its name, given or not."""
        return self.name or PurePath(self.store).name.removesuffix(".zarr") or self.store


class EvaluationConfig(Section):
    """Held-out loss while a run trains: of the same samples every time, with the layout that trains."""

    stores: list[HeldOut] = Field(default=[])
    """Token stores; each has a loss of its own."""
    every_steps: int = Field(default=500, ge=1)
    """Steps from one evaluation to the next; the last step is evaluated too."""
    batches: int = Field(default=8, ge=1)
    """Batches of train.global_batch_size samples that are read of each store, less if it holds less."""
    keep_best: bool = True
    """Keep the checkpoint with the lowest held-out loss (the mean over stores) beside the newest checkpoint.keep. A
    checkpoint has one if its step was evaluated."""

    @model_validator(mode="after")
    def _names_differ(self) -> "EvaluationConfig":
        names = [held.label for held in self.stores]
        for number, name in enumerate(names):
            if names.index(name) < number:
                raise ValueError(f"stores.{number}.name: {name!r} is another store's name too")
        return self
