"""Loss on held-out stores, by the engine that trains, on its own layout: the same samples every time."""

import math
from dataclasses import dataclass

from ..config.errors import UserError
from ..config.layout import Layout
from ..config.model import ModelShape
from ..config.run import RunConfig
from ..storage.loading.held_out import held_out_data
from ..storage.loading.training_data import TrainingData
from ..tracking.console import say
from ..tracking.perplexity import perplexity
from .batches import BatchReader
from .engine import Engine
from .ranks import Rank, host_array


@dataclass(frozen=True)
class _Held:
    """A store's name, what reads this rank's share of it, and how many global batches are read."""

    name: str
    reader: BatchReader
    batches: int


class Evaluation:
    """Every rank has one, and all call it at the same steps."""

    def __init__(self, run: RunConfig, model: ModelShape, layout: Layout, me: Rank, tokenizer: str) -> None:
        """Opens the stores, of a tokenizer's fingerprint. Raises UserError or FoundBad naming one that does not do."""
        self._config, self._steps, self._me = run.evaluation, run.train.steps, me
        self._batch = run.train.global_batch_size
        self._held = []
        place = layout.coordinates(me.rank)
        for name, data in held_out_data(run, model, tokenizer).items():
            reader = BatchReader(run, data, place.data, layout.data, host_array)
            self._held.append(_Held(name, reader, min(self._config.batches, _whole_batches(name, data, self._batch))))

    def after(self, step: int, engine: Engine) -> dict[str, float] | None:
        """Loss by store, in nats per counted token, the same on every rank; None if this step is not evaluated."""
        if not self._held or (step % self._config.every_steps and step != self._steps):
            return None
        losses = {held.name: self._loss(held, engine) for held in self._held}
        if self._me.rank == 0:
            words = ", ".join(f"{name} {loss:.4f} (perplexity {perplexity(loss):.4g})" for name, loss in losses.items())
            say(f"step {step}: held-out loss: {words}")
        return losses

    def close(self) -> None:
        """End the threads that read ahead."""
        for held in self._held:
            held.reader.close()

    def _loss(self, held: _Held, engine: Engine) -> float:
        total, tokens = 0.0, 0
        for number in range(held.batches):
            loss, counted = engine.evaluate(held.reader.read(number * self._batch))
            total, tokens = total + loss, tokens + counted
        return total / tokens if tokens else math.nan


def _whole_batches(name: str, data: TrainingData, batch: int) -> int:
    count = data.num_samples // batch
    if not count:
        raise UserError(
            "evaluation.stores",
            f"{name} holds {data.num_samples} samples, and a batch takes {batch}",
            "give a larger store, or a smaller train.global_batch_size",
        )
    return count
