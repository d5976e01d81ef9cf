"""Experts kept in balance without a loss: by a bias that decides, with the scores, which experts a token goes to.

After each update the bias of experts with too few tokens in the step's global batch rises by a fixed rate, and that of
those with too many falls (https://arxiv.org/abs/2408.15664, algorithm 1). All ranks know the same counts, so that all
come to the same bias, in every layout.
"""

import numpy as np
import torch

from ..config.model import ModelShape
from ..config.run import RunConfig
from ..tracking.recorder import Routing

_RATE = 1e-3  # the paper's, and DeepSeek-V3's


class Balance:
    """The rule of one run. `applies` is False where there is no bias, or where it stays as it was loaded."""

    def __init__(self, run: RunConfig, model: ModelShape) -> None:
        given = run.train.router.bias_update_rate
        rate = _RATE if given is None else given
        biased = model.experts is not None and model.experts.biased
        self._rate = rate if biased and run.train.lora is None else 0.0

    @property
    def applies(self) -> bool:
        return self._rate > 0

    def changes(self, routing: Routing) -> torch.Tensor:
        """What to add to the biases after a step, float32 [layers with experts, num_experts]."""
        return torch.from_numpy((self._rate * np.sign(1 - routing.load)).astype(np.float32))


def choice_scores(logits: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """What the top k is taken of, [tokens, num_experts]; logits have that shape too, and bias [num_experts].

    Without a bias, as routers by softmax are, that is the logits.
    """
    return logits if bias is None else logits.sigmoid() + bias


def shares_of(logits: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """What the balance loss takes each expert's score to be, [tokens, num_experts]: those of a token sum to 1."""
    if bias is None:
        return logits.softmax(-1)
    scores = logits.sigmoid()
    return scores / scores.sum(-1, keepdim=True)
