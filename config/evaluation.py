"""The `evaluation` section: held-out data, and how often the loss on it is measured."""

from pydantic import Field, model_validator

from .base import Section
from .stores import Store


class EvaluationConfig(Section):
    """Held-out loss while a run trains: of the same samples every time, with the layout that trains."""

    stores: list[Store] = Field(default=[])
    """Token stores that are not trained on, of the tokenizer of `data.train`; each has a loss of its own."""
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
