"""An engine that learns nothing and computes exactly: its state and loss tell which samples it was given, in order.

Every rank holds all tensors and owns a share of their rows. It obeys toy_faults, and two orders more: `skip-pair`
leaves out the all-reduce of its pair, `hang-after-pair` hangs behind that.
"""

import hashlib
import os
import time
from dataclasses import replace

import numpy as np
import torch
import torch.distributed as dist
from toy_faults import Faults  # type: ignore[import-not-found]
from toy_hangs import HANGS  # type: ignore[import-not-found]

from trainwright.config.layout import Layout
from trainwright.config.model import ModelShape
from trainwright.config.run import RunConfig
from trainwright.parallelism.engine import Accept, Samples, StepResult, Watch
from trainwright.storage.checkpoints.checkpoint_writer import OwnedRectangle
from trainwright.storage.checkpoints.rectangles import Rectangle, matrix_shape
from trainwright.storage.checkpoints.tensor_names import tensor_shapes
from trainwright.storage.checkpoints.tensor_source import TensorSource

_SLOTS = ("weight", "exp_avg", "exp_avg_sq")


class MegatronEngine:
    """See Engine."""

    def __init__(self, run: RunConfig, model: ModelShape, layout: Layout, rank: int) -> None:
        self._rank, self._size = rank, layout.world_size
        self._shapes = {name: matrix_shape(shape) for name, shape in tensor_shapes(model).items()}
        self._state: dict[tuple[str, str], np.ndarray] = {}
        self._seconds = float(os.environ.get("TOY_STEP_S", "0.02"))
        pairs = [dist.new_group([first, first + 1], group_desc="PAIR") for first in range(0, self._size - 1, 2)]
        self._pair = pairs[rank // 2] if rank // 2 < len(pairs) else None
        key = os.environ.get("WANDB_API_KEY", "")
        print("digest of the key:", hashlib.sha256(key.encode()).hexdigest(), flush=True)
        self._faults = Faults(rank)

    def load(self, source: TensorSource, optimizer_steps: int) -> None:
        for name, (rows, cols) in self._shapes.items():
            for slot in _SLOTS:
                whole = Rectangle(row=0, num_rows=rows, col=0, num_cols=cols)
                self._state[slot, name] = source.read_rectangle(slot, name, whole).copy()

    def train_step(
        self, samples: Samples, learning_rate: float, accept: Accept | None = None, watch: Watch | None = None
    ) -> StepResult:
        self._faults.before_step()
        if self._pair and self._faults.order != "skip-pair":
            dist.all_reduce(torch.ones(1), group=self._pair)
        if self._faults.order == "hang-after-pair":
            HANGS["hang"](self._rank)
        weights = np.arange(1, samples.tokens.shape[1] + 1)
        sums = torch.tensor([int((samples.tokens * weights).sum()), int(samples.counted.sum())])
        dist.all_reduce(sums)
        total, counted = (int(number) for number in sums)
        first = self._state["weight", next(iter(self._shapes))]
        result = StepResult(loss=float(first[0, 0]) + total % 1009, grad_norm=1.0, tokens=counted, skipped=False)
        if accept and not accept(result):
            return replace(result, skipped=True)
        for value in self._state.values():
            value *= np.float32(0.999)
            value += np.float32(total % 10007) * np.float32(1e-6)
        time.sleep(self._seconds)
        return result

    def owned_state(self) -> list[OwnedRectangle]:
        self._faults.before_save()
        owned = []
        for (slot, name), value in self._state.items():
            rows = value.shape[0]
            begin, end = (rows * place // self._size for place in (self._rank, self._rank + 1))
            if end > begin:
                rectangle = Rectangle(row=begin, num_rows=end - begin, col=0, num_cols=value.shape[1])
                owned.append(OwnedRectangle(slot, name, rectangle, value[begin:end]))
        return owned
