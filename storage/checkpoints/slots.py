"""What a checkpoint holds of a tensor beside its weight: the optimizer's state, by optimizer and tensor. No torch."""

import re
from collections.abc import Sequence

from .tensor_names import is_expert_bias
from .tensor_source import WEIGHT

MOMENT, SQUARE = "exp_avg", "exp_avg_sq"
"""The moving averages of a gradient (Muon's momentum is such a one too) and of its square."""
SLOTS = (WEIGHT, MOMENT, SQUARE)
# Matrices from one hidden layer to the next: not the vocabulary's, not those that choose between experts.
_HIDDEN = re.compile(r"\.(?:[qkvo]|gate|up|down)_proj\.weight$|\.w[123]\.weight$")


def by_muon(optimizer: str, name: str) -> bool:
    """Whether the tensor of that Hugging Face name is Muon's, if that is the optimizer; all else is AdamW's."""
    return optimizer == "muon" and _HIDDEN.search(name) is not None


def moments_of(optimizer: str, names: Sequence[str]) -> tuple[str, ...]:
    """The optimizer's slots of tensors that are all of one kind, such as those that share a matrix of an engine."""
    if names and is_expert_bias(names[0]):
        return ()
    return (MOMENT,) if names and by_muon(optimizer, names[0]) else (MOMENT, SQUARE)
