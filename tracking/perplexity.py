"""Perplexity, in one place."""

import math


def perplexity(loss: float) -> float:
    """exp of a mean loss in nats per token; infinite where that is too large for a float."""
    return math.exp(loss) if loss < 700 else math.inf
