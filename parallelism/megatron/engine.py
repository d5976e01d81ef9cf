"""The megatron-core engine: tensor, sequence, context, pipeline, expert and data parallel ranks.

Imported only after compat.prepare().
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel
from megatron.core.distributed import DistributedDataParallel, finalize_model_grads
from megatron.core.optimizer import get_megatron_optimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.module import Float16Module
from megatron.core.utils import unwrap_model

from ...config.layout import Layout
from ...config.model import ModelShape
from ...config.run import RunConfig
from ...storage.checkpoints.checkpoint_writer import OwnedRectangle
from ...storage.checkpoints.tensor_source import TensorSource
from ..compat import with_transformer_engine
from ..engine import Accept, Samples, StepResult, Watch
from .batches import MicroBatch, MicroBatches
from .context import ContextShare
from .model import build_model, initialize_groups, transformer_config
from .rotary import RestartingRotary
from .routers import Routers
from .settings import ddp_config, optimizer_config, overlap
from .state import MegatronState

_Loss = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]  # sum of losses, counted tokens, report


class MegatronEngine:
    """One rank of a megatron-core training run. See engine.Engine for the contract."""

    def __init__(self, run: RunConfig, model: ModelShape, layout: Layout, rank: int) -> None:
        self._run, self._model, self._layout = run, model, layout
        self._place = layout.coordinates(rank)
        self._device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu"
        initialize_groups(layout)
        tensor_parallel.model_parallel_cuda_manual_seed(run.train.seed % 2**31)
        config = transformer_config(run, model, layout)
        self._chunks = [self._build(config, number) for number in range(layout.virtual_pipeline)]
        self._gpts = {chunk: unwrap_model(chunk) for chunk in self._chunks}
        self._optimizer = get_megatron_optimizer(optimizer_config(run), self._chunks)
        config.finalize_model_grads_func = finalize_model_grads
        if run.parallelism.overlap:
            overlap(config, self._chunks)
        self._state = MegatronState(
            [*self._gpts.values()], self._optimizer, model, layout, self._place, run.train.optimizer.name
        )
        if run.train.optimizer.name == "muon":
            self._state.use_muon(run.train.optimizer.momentum)
        self._share = ContextShare.of(layout, self._place)
        self._micro_batches = MicroBatches(self._share, run.train.micro_batch_size, self._device)
        self._routers = Routers(self._chunks, run, model) if model.experts else None
        self._forward_backward = get_forward_backward_func()

    def _build(self, config: TransformerConfig, number: int) -> DistributedDataParallel:
        """One chunk of this rank's layers with its gradient buffers."""
        run, restart = self._run, self._run.data.reset_positions
        chunk: torch.nn.Module = build_model(
            config,
            self._model,
            self._layout,
            self._place,
            number,
            reset_positions=restart,
            transformer_engine=with_transformer_engine(run.parallelism.transformer_engine),
        )
        chunk.to(self._device)
        if run.train.precision == "bf16":
            chunk = Float16Module(config, chunk)
        # Of several chunks only the first one's gradients are cut into buckets, as in megatron-core's own training.
        return DistributedDataParallel(config, ddp_config(run), chunk, disable_bucketing=number > 0)

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
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
            group["weight_decay"] = self._run.train.optimizer.weight_decay * group.get("wd_mult", 1.0)
        for chunk in self._chunks:
            chunk.train()
            chunk.zero_grad_buffer()
        self._optimizer.zero_grad()
        if self._routers:
            self._routers.begin_step(samples)
        loss, tokens, mine = self._run_microbatches(samples)
        self._optimizer.prepare_grads()
        tried = StepResult(
            loss=loss,
            grad_norm=float(self._optimizer.get_grad_norm()),
            tokens=tokens,
            skipped=False,
            routing=self._routers.report() if self._routers else None,
            local_loss=mine,
        )
        if watch:
            watch(self._state.gradients())
        applied = math.isfinite(tried.grad_norm) and (accept is None or accept(tried)) and self._update(tried.grad_norm)
        if applied and self._routers and tried.routing:
            self._routers.rebalance(tried.routing)
        return replace(tried, skipped=not applied)

    def evaluate(self, samples: Samples) -> tuple[float, int]:
        """See Engine."""
        for chunk in self._chunks:
            chunk.eval()
        if self._routers:
            self._routers.begin_step(samples)
        with torch.no_grad(), self._gathered():
            mean, tokens, _ = self._run_microbatches(samples, forward_only=True)
        return mean * tokens, tokens

    def logits(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        """See Engine. Runs the pipeline once per sequence; the slices of tensor and context ranks are gathered."""
        for chunk in self._chunks:
            chunk.eval()
        # With virtual stages a pipeline takes its micro batches in groups of one for each stage.
        group = self._layout.pipeline if self._layout.virtual_pipeline > 1 else 1
        count = -(-len(tokens) // group) * group
        unit = self._layout.length_unit(sequence=self._run.parallelism.sequence)
        length = -(-tokens.shape[1] // unit) * unit
        rows = torch.zeros(count, length, dtype=torch.int64, device=self._device)
        rows[: len(tokens), : tokens.shape[1]] = torch.from_numpy(tokens)
        collected: list[torch.Tensor] = []

        def forward(iterator: Iterator[torch.Tensor], chunk: torch.nn.Module) -> tuple[torch.Tensor, Any]:
            output = self._run_stage(chunk, self._micro_batches.of_tokens(next(iterator)))

            def keep(out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
                whole = self._share.whole(tensor_parallel.gather_from_tensor_model_parallel_region(out))
                collected.append(whole[:, : tokens.shape[1], : self._model.vocab_size].float().cpu())
                return out.sum(), torch.ones((), dtype=torch.int, device=self._device), {}

            return output, keep

        with torch.no_grad(), self._gathered():
            self._forward_backward(
                forward_step_func=forward,
                data_iterator=self._for_each_chunk(lambda: iter(torch.split(rows, 1))),
                model=self._chunks,
                num_microbatches=count,
                seq_length=length,
                micro_batch_size=1,
                forward_only=True,
            )
        return torch.cat(collected)[: len(tokens)].numpy() if collected else None

    @contextmanager
    def _gathered(self) -> Iterator[None]:
        """All weights are there, and no forward pass gathers any meanwhile."""
        hooked = [chunk for chunk in self._chunks if chunk.use_forward_hook]
        for chunk in hooked:
            chunk.disable_forward_pre_hook(param_sync=True)
        yield
        for chunk in hooked:
            chunk.enable_forward_pre_hook()

    def _update(self, norm: float) -> bool:
        """Clip and step, given the norm before clipping; whether it was applied.

        megatron's own step() would apply a gradient that is not finite, so its parts are called here.
        """
        limit = self._run.train.optimizer.clip_norm
        for optimizer in getattr(self._optimizer, "chained_optimizers", [self._optimizer]):
            if limit and optimizer.get_parameters():
                clip_grad_by_total_norm_fp32(optimizer.get_parameters(), max_norm=limit, total_norm=norm)
        return bool(self._optimizer.step_with_ready_grads())

    def _run_microbatches(self, samples: Samples, *, forward_only: bool = False) -> tuple[float, int, float]:
        """Forward and backward over all micro batches; mean loss and counted tokens of the global batch, own loss."""
        size = self._run.train.micro_batch_size
        count = len(samples.tokens) // size
        reports = self._forward_backward(
            forward_step_func=self._forward_step,
            data_iterator=self._for_each_chunk(lambda: self._micro_batches.of(samples)),
            model=self._chunks,
            num_microbatches=count,
            seq_length=samples.tokens.shape[1] - 1,
            micro_batch_size=size,
            forward_only=forward_only,
        )
        total = torch.zeros(2, dtype=torch.float64, device=self._device)
        if reports and self._place.tensor == 0:  # only the last stage has reports
            total += torch.stack([report["sums"] for report in reports]).sum(0)
        mine = float(total[0])
        dist.all_reduce(total)
        loss_sum, tokens = total.tolist()
        return (loss_sum / tokens if tokens else 0.0), int(tokens), mine

    def _for_each_chunk(self, make: Callable[[], Iterator[Any]]) -> Any:
        """What megatron-core's schedules take: an iterator, or with virtual stages a list of one for each chunk."""
        return [make() for _ in self._chunks] if self._layout.virtual_pipeline > 1 else make()

    def _forward_step(self, batches: Iterator[MicroBatch], chunk: torch.nn.Module) -> tuple[torch.Tensor, Any]:
        """One micro batch through this stage; the loss function runs on the last stage only."""
        batch = next(batches)
        return self._run_stage(chunk, batch), lambda logits: self._loss(logits, batch)

    def _run_stage(self, chunk: torch.nn.Module, batch: MicroBatch) -> Any:
        """What a chunk of this stage's layers makes of a micro batch."""
        rotary = self._gpts[chunk].rotary_pos_emb
        if isinstance(rotary, RestartingRotary):
            rotary.positions = batch.positions
        return chunk(batch.ids, batch.positions, None, packed_seq_params=batch.packed)

    def _loss(self, logits: torch.Tensor, batch: MicroBatch) -> _Loss:
        """Of logits [b, s / context, vocab / tensor], whose padding rows count for nothing."""
        first = parallel_state.get_tensor_model_parallel_rank() * logits.shape[-1]
        real = self._model.vocab_size - first
        if real < logits.shape[-1]:
            padding = torch.arange(logits.shape[-1], device=logits.device) >= real
            logits = logits.masked_fill(padding, -math.inf)
        losses = tensor_parallel.vocab_parallel_cross_entropy(logits.float(), batch.labels)
        total = (losses * batch.counted).sum()
        tokens = batch.counted.sum().to(torch.int)
        return total, tokens, {"sums": torch.stack([total.detach().double(), tokens.double()])}
