"""Losses and counts of the routers of transformers' models, alike in every layout (see megatron/experts.py)."""

import math
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.functional import one_hot

from ...config.model import ModelShape
from ...config.run import RunConfig
from ...tracking.recorder import Routing
from ..balancing import Balance, choice_scores, shares_of


class Routers:
    """All routers of a model; what they decide is collected in every forward pass that has gradients."""

    def __init__(self, module: Any, run: RunConfig, model: ModelShape, context: dist.ProcessGroup | None) -> None:
        assert model.experts is not None
        self._experts, self._context, train = model.experts, context, run.train
        given = train.router.aux_loss_coef
        self._aux = model.experts.aux_loss_coef if given is None else given
        self._z = train.router.z_loss_coef
        self._num_batches = train.global_batch_size // train.micro_batch_size
        self._length = run.data.sequence_length
        self._micro_batch_size = train.micro_batch_size
        self._logits: dict[int, torch.Tensor] = {}
        self._watches_ties = run.tracking.expert_load_every == 1
        self._margin = math.inf
        self._balance = Balance(run, model)
        self._biases: list[torch.Tensor | None] = []
        self._reset()
        for layer in model.experts.layers:
            block = module.model.layers[layer]
            feed_forward = block.mlp if hasattr(block, "mlp") else block.block_sparse_moe
            gate = (
                feed_forward.router.gate if hasattr(feed_forward, "router") else feed_forward.gate
            )  # AutoEP's, or own
            gate.register_forward_hook(self._keeper(layer))
            self._biases.append(getattr(gate, "e_score_correction_bias", None))

    def begin(self) -> None:
        """Before each micro batch: recompute may have left what it saw again."""
        self._logits.clear()

    def loss(self) -> torch.Tensor:
        """This rank's part of the routers' losses of the micro batch that has just passed, over the global batch.

        The mean over micro batches of aux x balance + z x mean of squared logsumexp, summed over layers and scaled by
        nothing else: positions that do not count in the loss are routed all the same.
        """
        positions, total = self._micro_batch_size * self._length, torch.zeros(())
        for row, layer in enumerate(self._experts.layers):
            logits, bias = self._logits.pop(layer), self._biases[row]
            sent = self._counts(choice_scores(logits.detach(), bias))
            self._sums[row, :-2] += sent.cpu()
            # The loss is that of the scores, whatever the bias makes of them.
            counts = sent if bias is None else self._counts(logits.detach())
            if self._context is not None:
                dist.all_reduce(counts, group=self._context)
            share = (counts / (positions * self._experts.num_active)).to(logits.dtype)
            balance = self._experts.num_experts * (share * shares_of(logits, bias).sum(0) / positions).sum()
            squares = logits.logsumexp(-1).square().sum()
            self._sums[row, -2] += float(balance.detach())
            self._sums[row, -1] += float(squares.detach())
            self._watch_ties(choice_scores(logits.detach(), bias))
            total = total.to(logits.device) + self._aux * balance + self._z * squares / positions
        return total / self._num_batches

    def report(self) -> Routing:
        """Sums of all ranks since the last call, as means over the global batch."""
        sums = self._sums.to("cuda" if torch.cuda.is_available() else "cpu")
        dist.all_reduce(sums)
        margin = torch.tensor(self._margin)
        if self._watches_ties:
            dist.all_reduce(margin, op=dist.ReduceOp.MIN)
        sums, positions = sums.cpu(), self._num_batches * self._micro_batch_size * self._length
        self._reset()
        even = positions * self._experts.num_active / self._experts.num_experts
        return Routing(
            load=(sums[:, :-2] / even).numpy(),
            aux_loss=float(sums[:, -2].mean()) / self._num_batches if self._aux else None,
            z_loss=float(sums[:, -1].mean()) / positions,
            margin=float(margin) if self._watches_ties else None,
        )

    def rebalance(self, routing: Routing) -> None:
        """Move the biases by what a step that was applied has sent to each expert."""
        if self._balance.applies:
            for bias, change in zip(self._biases, self._balance.changes(routing), strict=True):
                assert bias is not None
                bias += change.to(bias.device)

    def _counts(self, scores: torch.Tensor) -> torch.Tensor:
        """Tokens for which each expert is among the best, float64 [num_experts]."""
        best = scores.topk(self._experts.num_active, dim=-1).indices
        return one_hot(best, self._experts.num_experts).sum((0, 1)).double()

    def _keeper(self, layer: int) -> Any:
        def keep(_: Any, inputs: Any, output: Any) -> None:
            if torch.is_grad_enabled():  # the weight itself may be gone already under ZeRO 3
                self._logits[layer] = (output[0] if isinstance(output, tuple) else output).float()

        return keep

    def _watch_ties(self, scores: torch.Tensor) -> None:
        if self._watches_ties and self._experts.num_active < self._experts.num_experts:
            best = scores.topk(self._experts.num_active + 1).values
            self._margin = min(self._margin, float((best[:, -2] - best[:, -1]).min()))

    def _reset(self) -> None:
        rows, columns = len(self._experts.layers), self._experts.num_experts + 2
        self._sums, self._margin = torch.zeros(rows, columns, dtype=torch.float64), math.inf
