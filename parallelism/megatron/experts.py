"""A mixture of experts without Transformer Engine: the router with its losses and counts, and the experts' products.

Imported only after compat.prepare().
"""

import math
from typing import Any

import torch
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler
from megatron.core.transformer.moe.router import TopKRouter
from torch.nn.functional import silu

from ..balancing import choice_scores


class Router(TopKRouter):  # type: ignore[misc]
    """megatron-core's top-k router, with losses that no layout changes, and counts of what it chose.

    megatron-core below 0.19 divides both losses by the tensor parallel size when the loss is a mean over tokens
    (https://github.com/NVIDIA/Megatron-LM/pull/5047). Here each rank attaches its share of

        positions of the micro batch x token_share x (aux_coef x balance + z_coef x mean of squared logsumexp)

    and finalize_model_grads divides the sum by the counted tokens of the global batch: with `token_share` (counted
    tokens / positions of the global batch) that is the mean over micro batches, however much of them is masked.
    """

    def __init__(self, config: TransformerConfig, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        if self.score_function == "sigmoid":
            # megatron-core's own update of the bias would come before we know whether the step is applied.
            del self.expert_bias
            self.register_buffer("expert_bias", torch.zeros(self.num_experts, device=self.weight.device))
        self.token_share = 1.0
        self.watches_ties = False
        self._margin = math.inf
        self._counts: torch.Tensor | None = None

    def forward(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities and map [tokens, num_experts] of the chosen experts; the choices are counted."""
        probabilities, chosen = super().forward(*args, **kwargs)
        if self.training and torch.is_grad_enabled():  # under recompute only the second pass has gradients
            self._add(chosen.sum(0), 0)
        return probabilities, chosen

    def attach_and_log_load_balancing_loss(
        self, activation: torch.Tensor, aux_loss_coeff: float, aux_loss: torch.Tensor, *_: Any, **__: Any
    ) -> torch.Tensor:
        """Attach this rank's share of coefficient x balance loss of the micro batch."""
        self._add((aux_loss / aux_loss_coeff).detach(), self.num_experts)
        positions = activation.shape[0] * self.tp_cp_group.size()
        attached: torch.Tensor = MoEAuxLossAutoScaler.apply(activation, aux_loss * (positions * self.token_share))
        return attached

    def apply_z_loss(self, logits: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Attach this rank's share of the z loss; logits [tokens, num_experts]."""
        if not (self.training and torch.is_grad_enabled()):
            return logits
        if self.watches_ties and self.topk < self.num_experts:
            best = choice_scores(logits.detach().float(), self.expert_bias).topk(self.topk + 1).values
            self._margin = min(self._margin, float((best[:, -2] - best[:, -1]).min()))
        squares = torch.logsumexp(logits.float(), -1).square().sum()
        self._add(squares.detach(), self.num_experts + 1)
        if not self.config.moe_z_loss_coeff:
            return logits
        attached: torch.Tensor = MoEAuxLossAutoScaler.apply(
            logits, squares * (self.config.moe_z_loss_coeff * self.token_share)
        )
        return attached

    def take_sums(self) -> torch.Tensor:
        """Sums since the last call, float64 [num_experts + 2]: tokens per expert, balance, squared logsumexp."""
        sums, self._counts = self._sums(), None
        return sums

    def take_margin(self) -> float:
        """Smallest gap since the last call between the scores of the last chosen and the first unchosen expert."""
        margin, self._margin = self._margin, math.inf
        return margin

    def _sums(self) -> torch.Tensor:
        if self._counts is None:
            self._counts = torch.zeros(self.num_experts + 2, dtype=torch.float64, device=self.weight.device)
        return self._counts

    def _add(self, values: torch.Tensor, at: int) -> None:
        self._sums()[at : at + values.numel()] += values.reshape(-1)


class Experts(MegatronModule):  # type: ignore[misc]
    """The experts of one layer that a rank holds, their matrices stacked, so that a GPU runs them as one product.

    gate_up [experts * 2 * width, hidden], down [experts * hidden, width]; `width` is this rank's share of an expert's
    width under expert tensor parallel. The token dispatcher moves tokens and sums the shares.
    """

    def __init__(self, num_local_experts: int, config: TransformerConfig, pg_collection: Any = None, **_: Any) -> None:
        super().__init__(config=config)
        assert config.moe_ffn_hidden_size is not None
        width = config.moe_ffn_hidden_size // pg_collection.expt_tp.size()
        self._num = num_local_experts
        self.gate_up = _matrix(num_local_experts * 2 * width, config.hidden_size, config)
        self.down = _matrix(num_local_experts * config.hidden_size, width, config)

    def forward(
        self, tokens: torch.Tensor, tokens_per_expert: torch.Tensor, probabilities: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        """tokens [n, hidden], by expert; tokens_per_expert [experts]; probabilities [n] -> ([n, hidden], None)."""
        gate, up = _grouped(tokens, self.gate_up.view(self._num, -1, tokens.shape[-1]), tokens_per_expert).chunk(2, -1)
        inner = (silu(gate) * up * probabilities.unsqueeze(-1)).to(tokens.dtype)
        return _grouped(inner, self.down.view(self._num, -1, inner.shape[-1]), tokens_per_expert), None


def _matrix(rows: int, cols: int, config: TransformerConfig) -> torch.nn.Parameter:
    device = None if config.use_cpu_initialization else torch.cuda.current_device()
    weight: Any = torch.nn.Parameter(torch.empty(rows, cols, dtype=config.params_dtype, device=device))
    # Not one of the dense parameters' copies: other groups reduce its gradient. megatron-core's own experts lose the
    # mark at expert parallel 1, and ranks drift apart where tensor parallel is not that of the experts
    # (https://github.com/NVIDIA/Megatron-LM/issues/5916).
    weight.allreduce = False
    # Every rank's share counts in the gradient's norm.
    weight.tensor_model_parallel, weight.partition_dim, weight.partition_stride = True, 0, 1
    parameter: torch.nn.Parameter = weight
    return parameter


def _grouped(x: torch.Tensor, weights: torch.Tensor, rows_per_group: torch.Tensor) -> torch.Tensor:
    """x [n, k] times weights [groups, m, k], transposed, each run of rows with its own group: [n, m]."""
    if x.is_cuda and x.dtype == torch.bfloat16 and x.shape[-1] % 8 == 0 and weights.shape[1] % 8 == 0:
        ends = rows_per_group.to(x.device).cumsum(0).to(torch.int32)
        product: torch.Tensor = torch._grouped_mm(x, weights.transpose(1, 2), offs=ends)
        return product
    runs = torch.split(x, [int(count) for count in rows_per_group.tolist()])
    return torch.cat([run @ weight.t() for run, weight in zip(runs, weights.unbind(0), strict=True)])
