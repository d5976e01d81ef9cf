"""The contract that every training engine keeps. The trainer is its only caller."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..storage.checkpoints.checkpoint_writer import OwnedRectangle
from ..storage.checkpoints.tensor_source import TensorSource
from ..storage.loading.offsets import DocumentOffsets
from ..tracking.recorder import Routing


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Some sequences of the global batch.

    tokens: int64 [num_sequences, sequence_length + 1]. counted: bool [num_sequences, sequence_length], whether the
    prediction of tokens[:, 1:] counts in the loss. documents: where they begin in tokens[:, :-1], or None if attention
    crosses documents.
    """

    tokens: npt.NDArray[np.int64]
    counted: npt.NDArray[np.bool_]
    documents: DocumentOffsets | None


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """One optimizer step, the same on every rank."""

    loss: float
    """Mean over all counted tokens of the global batch, in nats."""
    grad_norm: float
    """Global norm of the gradient before clipping."""
    tokens: int
    """Counted tokens of the global batch."""
    skipped: bool
    """The update was not applied since the gradient was not finite."""
    routing: Routing | None = None
    """What the routers did over the global batch; None for a dense model."""
    local_loss: float = 0.0
    """Not the same on every rank: the sum of the counted losses that this one computed itself, 0 if none."""


GRADIENT = "gradient"
"""Slot of the rectangles that a Watch gets."""
Watch = Callable[[Iterator[OwnedRectangle]], None]
"""Is shown what this rank owns of the gradient before clipping (every element is owned by one rank): that of the mean
loss over the counted tokens of the global batch, and of the router's losses."""


Accept = Callable[[StepResult], bool]
"""Is asked on every rank before an update that is finite, with the same result; whether it shall be applied."""


class Engine(Protocol):
    """A model, its optimizer and its parallel layout, on one rank."""

    def load(self, source: TensorSource, optimizer_steps: int) -> None:
        """Fill weights and optimizer slots from `source`; AdamW goes on as after `optimizer_steps` updates."""
        ...

    def train_step(
        self, samples: Samples, learning_rate: float, accept: Accept | None = None, watch: Watch | None = None
    ) -> StepResult:
        """One update on this rank's share of the global batch (the same on all ranks of one data parallel place).

        Without an update, since it is not finite or not accepted, weights and optimizer are as before.
        """
        ...

    def evaluate(self, samples: Samples) -> tuple[float, int]:
        """Sum of the losses over counted tokens of a global batch, in nats, and their number; equal on every rank."""
        ...

    def logits(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        """Logits [num_sequences, length, vocab_size] of tokens int64 [num_sequences, length], on the last stage."""
        ...

    def owned_state(self) -> list[OwnedRectangle]:
        """What this rank writes into a checkpoint; every element of every slot is owned by exactly one rank."""
        ...
