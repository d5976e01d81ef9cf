"""The `preflight` section: what is checked on every node before the first step of an attempt."""

from pydantic import Field

from .base import Section


class PreflightConfig(Section):
    """Checks by the ranks themselves, once they have joined. A node that fails one is kept from the run."""

    enabled: bool = True
    """Whether anything is checked."""
    slowest_fraction: float = Field(default=0.5, gt=0, le=1)
    """A node is too slow if it multiplies matrices at less than this fraction of the median rate of all, or of
    cluster.expected_tflops."""
    clock_skew_s: float = Field(default=2.0, gt=0)
    """Seconds that a node's clock may surely differ from the others'."""
