"""The DeepSpeed engine: transformers' model of the same config.json, ZeRO 1 to 3, AutoTP and Ulysses.

DeepSpeed takes means over ranks and micro batches; the losses that it gets are scaled so that the mean is the one over
the counted tokens of the global batch. Imported only after compat.prepare().
"""

import math
from dataclasses import replace
from functools import partial

import deepspeed
import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

from ...config.layout import Layout
from ...config.model import ModelShape
from ...config.run import RunConfig
from ...storage.checkpoints.checkpoint_writer import OwnedRectangle
from ...storage.checkpoints.tensor_source import TensorSource
from ..documents import Documents
from ..engine import Accept, Samples, StepResult, Watch
from ..transformers_names import Share
from .attention import Attention
from .compat import refusing
from .model import build_model, groups_of, optimizer_of, settings_of, sum_head_norms
from .routers import Routers
from .state import Zero3State, Zero12State


class DeepSpeedEngine:
    """One rank of a DeepSpeed training run. See engine.Engine for the contract."""

    def __init__(self, run: RunConfig, model: ModelShape, layout: Layout, rank: int) -> None:
        self._run, self._layout = run, layout
        self._place = layout.coordinates(rank)
        self._device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu"
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        deepspeed.init_distributed(dist_backend=backend, dist_init_required=False, verbose=False)
        self._context = _neighbours(layout.context, layout.world_size, rank, "CONTEXT_PARALLEL_GROUP")
        tensors = _neighbours(layout.tensor, layout.world_size, rank, "TENSOR_MODEL_PARALLEL_GROUP")
        self._attention = Attention(self._context)
        settings = settings_of(run, model, layout)
        built = build_model(run, model, self._attention, settings)
        if tensors is not None:
            sum_head_norms(built, tensors)
        self._engine, *_ = deepspeed.initialize(
            model=built,
            model_parameters=groups_of(run, built),
            optimizer=partial(optimizer_of, run),
            config=settings,
        )
        state = Zero3State if run.parallelism.zero == 3 else Zero12State
        self._state = state(self._engine.module, self._engine.optimizer, model, self._share(model))
        self._routers = Routers(self._engine.module, run, model, self._context) if model.experts else None

    def _share(self, model: ModelShape) -> Share:
        """What this rank has of the model under AutoTP and AutoEP."""
        mine = self._layout.experts_of(self._place, model.experts.num_experts) if model.experts else None
        return Share(tensor_rank=self._place.tensor, tensor_size=self._layout.tensor, experts=mine)

    def load(self, source: TensorSource, optimizer_steps: int) -> None:
        """See Engine."""
        self._state.load(source, optimizer_steps)

    def owned_state(self) -> list[OwnedRectangle]:
        """See Engine."""
        return list(self._state.owned())

    def train_step(
        self, samples: Samples, learning_rate: float, accept: Accept | None = None, watch: Watch | None = None
    ) -> StepResult:
        """See Engine."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.train()
        counted = self._sum_over_samples(float(samples.counted.sum()))
        size, loss = self._run.train.micro_batch_size, 0.0
        starts = range(0, len(samples.tokens), size)
        for start in starts:
            loss += self._micro_batch(samples, slice(start, start + size), counted)
            if start != starts[-1]:
                self._engine.step()
        if watch:
            watch(self._state.gradients())
        tried = StepResult(
            loss=self._sum(loss) / counted if counted else 0.0,
            grad_norm=math.inf,
            tokens=int(counted),
            skipped=True,
            routing=self._routers.report() if self._routers else None,
            local_loss=loss,
        )
        result = self._update(tried, accept)
        if result.routing and self._routers and not result.skipped:
            self._routers.rebalance(result.routing)
        return result

    def _update(self, tried: StepResult, accept: Accept | None) -> StepResult:
        """DeepSpeed's step, which asks `accept` once it knows the norm; one that is not finite never gets there."""
        asked: list[StepResult] = []

        def refused(norm: float) -> bool:
            asked.append(replace(tried, grad_norm=norm, skipped=False))
            if accept is not None and not accept(asked[0]):
                asked.append(replace(asked[0], skipped=True))
            return asked[-1].skipped

        with refusing(refused):
            self._engine.step()
        return asked[-1] if asked else tried

    def evaluate(self, samples: Samples) -> tuple[float, int]:
        """See Engine."""
        self._engine.eval()
        counted = self._sum_over_samples(float(samples.counted.sum()))
        size, loss = self._run.train.micro_batch_size, 0.0
        with torch.no_grad():
            for start in range(0, len(samples.tokens), size):
                loss += float(self._losses(samples, slice(start, start + size)))
        return self._sum(loss), int(counted)

    def logits(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        """See Engine."""
        self._engine.eval()
        unit = self._layout.length_unit(sequence=False)
        length = -(-tokens.shape[1] // unit) * unit
        rows = torch.zeros(len(tokens), length, dtype=torch.int64, device=self._device)
        rows[:, : tokens.shape[1]] = torch.from_numpy(tokens)
        collected = []
        with torch.no_grad():
            for row in torch.split(rows, 1):
                self._attention.documents = None
                positions = torch.arange(length, device=self._device)[None]
                out = self._engine(input_ids=self._local(row), position_ids=self._local(positions)).logits
                collected.append(self._whole(out)[:, : tokens.shape[1]].float().cpu())
        return torch.cat(collected).numpy()

    def _micro_batch(self, samples: Samples, rows: slice, counted: float) -> float:
        """Forward and backward of one micro batch; the sum of its counted losses on this rank."""
        total = self._losses(samples, rows)
        share = total / max(counted, 1.0)
        if self._routers:
            share = share + self._routers.loss()
        # DeepSpeed divides by the micro batches, and takes the mean over ranks.
        means = self._engine.gradient_accumulation_steps() * self._layout.context * self._layout.data
        self._engine.backward(share * means)
        return float(total.detach())

    def _losses(self, samples: Samples, rows: slice) -> torch.Tensor:
        """Forward of one micro batch; the sum of its counted losses on this rank."""
        tokens = torch.from_numpy(samples.tokens[rows]).to(self._device, non_blocking=True)
        ids, labels = tokens[:, :-1], self._local(tokens[:, 1:])
        positions = torch.arange(ids.shape[1], device=self._device).expand_as(ids)
        documents = self._documents(samples, rows)
        self._attention.documents = documents
        if documents is not None and self._run.data.reset_positions:
            positions = documents.positions(ids.shape)
        if self._routers:
            self._routers.begin()
        logits = self._engine(input_ids=self._local(ids), position_ids=self._local(positions)).logits
        losses = cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="none")
        mine = self._local(torch.from_numpy(samples.counted[rows]).to(self._device))
        return (losses * mine.flatten()).sum()

    def _documents(self, samples: Samples, rows: slice) -> Documents | None:
        if samples.documents is None:
            return None
        return Documents(samples.documents.cumulative(rows.start, rows.stop), self._device)

    def _local(self, x: torch.Tensor) -> torch.Tensor:
        """x [b, s, ...] -> this context rank's positions, one run of them."""
        if self._context is None:
            return x
        return torch.chunk(x, self._layout.context, dim=1)[self._place.context].contiguous()

    def _whole(self, x: torch.Tensor) -> torch.Tensor:
        if self._context is None:
            return x
        parts = [torch.empty_like(x) for _ in range(self._layout.context)]
        dist.all_gather(parts, x.contiguous(), group=self._context)
        return torch.cat(parts, dim=1)

    def _sum(self, value: float) -> float:
        """Over data and context ranks; tensor ranks have the same."""
        box = torch.tensor(value, dtype=torch.float64, device=self._device)
        dist.all_reduce(box)
        return float(box) / self._layout.tensor

    def _sum_over_samples(self, value: float) -> float:
        """Over data ranks; context ranks have the same samples."""
        return self._sum(value) / self._layout.context


def _neighbours(size: int, world_size: int, rank: int, name: str) -> dist.ProcessGroup | None:
    """This rank's group of `size` neighbours, None if it is alone; every rank makes all groups."""
    if size == 1:
        return None
    mine = None
    for first in range(0, world_size, size):
        ranks = list(range(first, first + size))
        group = dist.new_group(ranks, group_desc=name)
        mine = group if rank in ranks else mine
    return mine
