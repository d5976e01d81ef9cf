"""Which losses and gradient norms are spikes: the rolling sigma rule, as in OLMo's SkipStepOptimizer. No torch."""

import math
from collections import deque
from collections.abc import Iterable

_FLATTEST = 5e-3
"""Standard deviation over the mean that a window has at least: a flat curve's smallest bend is no spike."""


class RollingSigma:
    """The last values of one series, and whether another one lies far above them."""

    def __init__(self, sigma: float, window: int) -> None:
        self._sigma, self._values = sigma, deque[float](maxlen=window)
        self._least = max(2, window // 2)

    def limit(self) -> float:
        """mean + sigma x standard deviation; infinite before half a window."""
        if len(self._values) < self._least:
            return math.inf
        mean = math.fsum(self._values) / len(self._values)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in self._values) / len(self._values))
        return mean + self._sigma * max(deviation, _FLATTEST * abs(mean))

    def add(self, value: float) -> None:
        """A value that the rule accepts, or that was trained on all the same."""
        self._values.append(value)


class Spikes:
    """Loss and gradient norm of the steps that were applied."""

    def __init__(self, sigma: float, window: int, before: Iterable[tuple[float, float]] = ()) -> None:
        """`before`: loss and gradient norm of the steps before these, oldest first."""
        self._loss, self._norm = RollingSigma(sigma, window), RollingSigma(sigma, window)
        for loss, norm in before:
            self.add(loss, norm)

    def words(self, loss: float, norm: float) -> str:
        """What lies above its limit, with the limit; empty if nothing does."""
        for name, value, series in (("loss", loss, self._loss), ("gradient norm", norm, self._norm)):
            if value > (limit := series.limit()):
                return f"{name} {value:.6g} is above {limit:.6g}"
        return ""

    def add(self, loss: float, norm: float) -> None:
        """A step that was applied."""
        self._loss.add(loss)
        self._norm.add(norm)
