"""What one rank computes, by other people's code: transformers' model, plain loops, the optimizer in NumPy.

Nothing of an engine is used here, so a mistake that an engine makes in every layout shows too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy, linear, one_hot

from ...config.model import ModelShape
from ...config.run import RunConfig
from ...storage.checkpoints.slots import MOMENT, SLOTS, SQUARE, by_muon
from ...storage.checkpoints.tensor_names import is_expert_bias
from ...storage.checkpoints.tensor_source import WEIGHT, Float32Array
from ..engine import GRADIENT, Samples
from ..transformers_names import pieces_of_parameter
from .drawn import STEPS_DONE, DrawnState

Slots = dict[str, dict[str, NDArray[np.float64]]]
"""Slot -> Hugging Face name -> matrix."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One step: what a layout must agree with."""

    loss: float
    grad_norm: float
    tokens: int
    slots: Slots
    """The gradient before clipping, and weights and moments after the update."""
    load: NDArray[np.float64] | None
    """[layers with experts, num_experts]: assignments over those of an even spread."""


class Reference:
    """The drawn state on one rank. Only float32 is computed."""

    def __init__(self, run: RunConfig, model: ModelShape, config: Path) -> None:
        """`config` is the folder of the model's config.json."""
        from transformers import AutoConfig, AutoModelForCausalLM

        self._run, self._shape = run, model
        loaded: Any = AutoConfig.from_pretrained(config)
        self._model: Any = AutoModelForCausalLM.from_config(loaded, attn_implementation="eager", dtype=torch.float32)
        self._model.eval()  # transformers' own losses of the router stay off
        drawn = DrawnState(model)
        self._shapes = drawn.shapes
        self._state: Slots = {
            slot: {name: drawn.whole(slot, name).astype(np.float64) for name in drawn.shapes} for slot in SLOTS
        }
        self._routed: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        self._watch_routers()
        self._updates = STEPS_DONE

    def step(self, samples: Samples, learning_rate: float) -> Outcome:
        """One update by the whole global batch."""
        self._put_weights()
        self._model.zero_grad()
        counted, size = int(samples.counted.sum()), self._run.train.micro_batch_size
        num_batches = len(samples.tokens) // size
        loss, load = 0.0, list[NDArray[np.float64]]()
        for start in range(0, len(samples.tokens), size):
            part = self._losses(samples, slice(start, start + size))
            loss += float(part.detach()) / counted
            total = part / counted
            if self._routed:
                router, chosen = self._router_losses()
                total = total + router / num_batches
                load.append(chosen)
            torch.autograd.backward(total)
        gradient = self._gradients()
        norm = float(np.sqrt(sum((each**2).sum() for each in gradient.values())))
        self._update(gradient, norm, learning_rate)
        spread = self._spread(load)
        self._rebalance(spread)
        slots = {slot: {name: each.copy() for name, each in named.items()} for slot, named in self._state.items()}
        return Outcome(loss=loss, grad_norm=norm, tokens=counted, slots={GRADIENT: gradient, **slots}, load=spread)

    def _losses(self, samples: Samples, rows: slice) -> torch.Tensor:
        """Sum of the counted tokens' losses of one micro batch."""
        tokens = torch.from_numpy(samples.tokens[rows])
        ids, labels = tokens[:, :-1], tokens[:, 1:]
        starts = self._starts(samples, rows)
        numbers = starts.cumsum(1)
        allowed = (numbers[:, :, None] == numbers[:, None, :]).tril()
        positions = torch.arange(ids.shape[1]).expand_as(ids)
        if self._run.data.reset_positions:
            positions = positions - torch.where(starts, positions, 0).cummax(1).values
        self._routed.clear()
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
        logits = self._model(
            input_ids=ids, attention_mask=mask[:, None], position_ids=positions, use_cache=False
        ).logits
        losses = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return (losses * torch.from_numpy(samples.counted[rows]).flatten()).sum()

    def _starts(self, samples: Samples, rows: slice) -> torch.Tensor:
        """bool [b, s], True where attention begins anew."""
        starts = torch.zeros(rows.stop - rows.start, samples.tokens.shape[1] - 1, dtype=torch.bool)
        starts[:, 0] = True
        if samples.documents is not None:
            ends = samples.documents.cumulative(rows.start, rows.stop)
            starts.view(-1)[torch.from_numpy(ends[:-1]).long()] = True
        return starts

    def _watch_routers(self) -> None:
        """Keep every router's logits [tokens, num_experts] and bias, in the order of layers."""

        def keep(gate: Any, inputs: tuple[torch.Tensor, ...], _: Any) -> None:
            logits = linear(inputs[0].reshape(-1, inputs[0].shape[-1]), gate.weight)
            self._routed.append((logits, getattr(gate, "e_score_correction_bias", None)))

        layers = self._shape.experts.layers if self._shape.experts else ()
        for number in layers:
            layer = self._model.model.layers[number]
            block = layer.mlp if hasattr(layer, "mlp") else layer.block_sparse_moe
            block.gate.register_forward_hook(keep)

    def _router_losses(self) -> tuple[torch.Tensor, NDArray[np.float64]]:
        """(weighted losses of one micro batch's routers, tokens sent to each expert [layers, num_experts]).

        Load balancing as in Switch Transformers (https://arxiv.org/abs/2101.03961, equation 4), over the top k; z loss
        as in ST-MoE (https://arxiv.org/abs/2202.08906, equation 5).
        """
        experts, router = self._shape.experts, self._run.train.router
        assert experts is not None
        aux = experts.aux_loss_coef if router.aux_loss_coef is None else router.aux_loss_coef
        total, chosen = torch.zeros(()), []
        for logits, bias in self._routed:
            scores = logits.softmax(-1) if bias is None else logits.sigmoid()
            scores = scores / scores.sum(-1, keepdim=True)
            share = self._counts(scores) / (len(logits) * experts.num_active)
            total = total + aux * experts.num_experts * (share * scores.mean(0)).sum()
            total = total + router.z_loss_coef * logits.logsumexp(-1).square().mean()
            sent = self._counts(logits if bias is None else logits.sigmoid() + bias)
            chosen.append(sent.numpy().astype(np.float64))
        return total, np.stack(chosen)

    def _counts(self, scores: torch.Tensor) -> torch.Tensor:
        assert self._shape.experts is not None
        best = scores.topk(self._shape.experts.num_active, dim=-1).indices
        return one_hot(best, self._shape.experts.num_experts).sum((0, 1))

    def _rebalance(self, load: NDArray[np.float64] | None) -> None:
        """The bias of loss-free balancing (https://arxiv.org/abs/2408.15664, algorithm 1)."""
        given, experts = self._run.train.router.bias_update_rate, self._shape.experts
        if load is None or experts is None or not experts.biased:
            return
        for layer, row in zip(experts.layers, load, strict=True):
            name = f"model.layers.{layer}.mlp.gate.e_score_correction_bias"
            bias = self._state[WEIGHT][name]
            bias += (0.001 if given is None else given) * np.sign(1 - row).reshape(bias.shape)

    def _spread(self, counts: list[NDArray[np.float64]]) -> NDArray[np.float64] | None:
        experts = self._shape.experts
        if experts is None:
            return None
        positions = self._run.train.global_batch_size * self._run.data.sequence_length
        spread: NDArray[np.float64] = np.sum(counts, axis=0) / (positions * experts.num_active / experts.num_experts)
        return spread

    def _parameters(self) -> Iterator[tuple[torch.Tensor, str, slice, slice]]:
        """(parameter, name, rows of the parameter, rows of the tensor) of every piece."""
        biases = ((own, each) for own, each in self._model.named_buffers() if is_expert_bias(own))
        for own, parameter in chain(self._model.named_parameters(), biases):
            for piece in pieces_of_parameter(own, self._shape):
                mine = slice(piece.local_row, piece.local_row + piece.num_rows)
                yield parameter, piece.name, mine, slice(piece.row, piece.row + piece.num_rows)

    def _put_weights(self) -> None:
        for parameter, name, mine, theirs in self._parameters():
            rows: Float32Array = self._state[WEIGHT][name][theirs].astype(np.float32)
            with torch.no_grad():
                _matrix(parameter)[mine] = torch.from_numpy(rows)

    def _gradients(self) -> dict[str, NDArray[np.float64]]:
        found = {name: np.zeros_like(each) for name, each in self._state[WEIGHT].items() if not is_expert_bias(name)}
        for parameter, name, mine, theirs in self._parameters():
            if parameter.grad is not None:
                found[name][theirs] = _matrix(parameter.grad)[mine].double().numpy()
        return found

    def _update(self, gradient: dict[str, NDArray[np.float64]], norm: float, learning_rate: float) -> None:
        """AdamW (https://arxiv.org/abs/1711.05101, algorithm 2), clipped by the global norm; vectors do not decay."""
        given = self._run.train.optimizer
        first, second = given.betas
        clip = min(1.0, given.clip_norm / (norm + 1e-6)) if given.clip_norm else 1.0
        self._updates += 1
        for name, each in gradient.items():
            weight, own = self._state[WEIGHT][name], each * clip
            if by_muon(given.name, name):
                self._update_by_muon(name, own, learning_rate)
                continue
            mean, square = self._state[MOMENT][name], self._state[SQUARE][name]
            mean[:] = first * mean + (1 - first) * own
            square[:] = second * square + (1 - second) * own**2
            is_matrix = len(self._shapes[name]) > 1
            weight *= 1 - learning_rate * (given.weight_decay if is_matrix else 0)
            corrected = np.sqrt(square / (1 - second**self._updates)) + given.eps
            weight -= learning_rate * mean / (1 - first**self._updates) / corrected

    def _update_by_muon(self, name: str, own: NDArray[np.float64], learning_rate: float) -> None:
        """Muon with Nesterov momentum (https://kellerjordan.github.io/posts/muon), scaled as in
        https://arxiv.org/abs/2502.16982, equation 4; the orthogonal matrix by the same five iterations."""
        given, weight, momentum = self._run.train.optimizer, self._state[WEIGHT][name], self._state[MOMENT][name]
        momentum[:] = given.momentum * momentum + own
        x = own + given.momentum * momentum
        x = x / (np.linalg.norm(x) + 1e-7)
        for _ in range(5):
            square = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
            mixed = -4.7750 * square + 2.0315 * square @ square
            x = 3.4445 * x + (mixed @ x if x.shape[0] <= x.shape[1] else x @ mixed)
        weight *= 1 - learning_rate * given.weight_decay
        weight -= learning_rate * 0.2 * max(x.shape) ** 0.5 * x


def _matrix(x: torch.Tensor) -> torch.Tensor:
    """A vector as one column, all else as rows of its last dim."""
    return (
        x.view(-1, 1)
        if x.dim() == 1
        else x.reshape(-1, x.shape[-1])
        if not x.is_contiguous()
        else x.view(-1, x.shape[-1])
    )
