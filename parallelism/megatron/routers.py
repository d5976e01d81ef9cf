"""What a megatron-core engine tells its routers before a step, and learns from them after it.

Imported only after compat.prepare().
"""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from ...config.model import ModelShape
from ...config.run import RunConfig
from ...tracking.recorder import Routing
from ..balancing import Balance
from ..engine import Samples
from .experts import Router


class Routers:
    """All routers of one rank's stage."""

    def __init__(self, chunks: Sequence[torch.nn.Module], run: RunConfig, model: ModelShape) -> None:
        assert model.experts is not None
        self._routers = [module for chunk in chunks for module in chunk.modules() if isinstance(module, Router)]
        self._rows = {layer: row for row, layer in enumerate(model.experts.layers)}
        self._num_experts, self._num_active = model.experts.num_experts, model.experts.num_active
        given = run.train.router.aux_loss_coef
        self._has_aux = (model.experts.aux_loss_coef if given is None else given) > 0
        self._positions = run.train.global_batch_size * run.data.sequence_length
        self._num_microbatches = run.train.global_batch_size // run.train.micro_batch_size
        self._balance = Balance(run, model)
        self._watches_ties = run.tracking.expert_load_every == 1
        for router in self._routers:
            router.watches_ties = self._watches_ties
        self._device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu"

    def begin_step(self, samples: Samples) -> None:
        """Tell the routers which share of the global batch's positions counts in the loss."""
        counted = torch.tensor(float(samples.counted.sum()), dtype=torch.float64, device=self._device)
        dist.all_reduce(counted, group=parallel_state.get_data_parallel_group())
        for router in self._routers:
            router.token_share = float(counted) / self._positions

    def rebalance(self, routing: Routing) -> None:
        """Move the biases by what a step that was applied has sent to each expert."""
        if self._balance.applies:
            changes = self._balance.changes(routing).to(self._device)
            for router in self._routers:
                router.expert_bias += changes[self._rows[router.layer_number - 1]]

    def report(self) -> Routing:
        """Sums of all ranks' routers since the last call, as means over the global batch."""
        sums = torch.zeros(len(self._rows), self._num_experts + 2, dtype=torch.float64, device=self._device)
        for router in self._routers:
            sums[self._rows[router.layer_number - 1]] += router.take_sums()
        # Ranks of a stage have different tokens (data, and sequence parallel), stages have different layers.
        dist.all_reduce(sums)
        sums = sums.cpu()
        margin = torch.tensor(min((router.take_margin() for router in self._routers), default=math.inf))
        if self._watches_ties:
            dist.all_reduce(margin, op=dist.ReduceOp.MIN)
        even = self._positions * self._num_active / self._num_experts
        return Routing(
            load=(sums[:, : self._num_experts] / even).numpy(),
            aux_loss=float(sums[:, self._num_experts].mean()) / self._num_microbatches if self._has_aux else None,
            z_loss=float(sums[:, self._num_experts + 1].mean()) / self._positions,
            margin=float(margin) if self._watches_ties else None,
        )
