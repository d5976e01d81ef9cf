"""The `guards` section: what a run does when a step looks wrong."""

from typing import Literal

from pydantic import Field

from .base import Section


class GuardsConfig(Section):
    """Each finding is recorded in the ledger and shown by `status`. warn: that alone. skip: the update is not applied.
    rollback: the newest checkpoint is loaded, and training goes on with the data behind the bad step. stop: the run
    ends."""

    non_finite: Literal["skip", "rollback", "stop"] = "skip"
    """A loss or gradient that is not finite; such an update is never applied."""
    spike: Literal["off", "warn", "skip", "rollback", "stop"] = "warn"
    """A loss or gradient norm above the mean of the last steps by more than spike_sigma standard deviations."""
    spike_sigma: float = Field(default=6.0, gt=0)
    """Standard deviations that make a spike."""
    spike_window: int = Field(default=128, ge=8)
    """Steps that mean and deviation are taken over; before half of them are done, nothing is a spike."""
    most_skipped: int = Field(default=10, ge=1)
    """Updates in a row that may be skipped; one more ends the run."""
    most_rollbacks: int = Field(default=3, ge=0)
    """Rollbacks of the whole run, restarts included; one more ends it."""
    repeated: Literal["off", "warn", "stop"] = "off"
    """A sample that the same rank has trained on among its last repeated_window samples."""
    repeated_window: int = Field(default=65536, ge=1)
    """Samples of each data parallel rank that are remembered, by digest. Less than an epoch, or epochs repeat."""
    recompute_every: int | None = Field(default=None, ge=1)
    """Compute every so many steps' gradient twice and compare: silent data corruption. Costs a step each time."""
    corrupt: Literal["leave", "stop"] = "leave"
    """When both computations differ. leave: this node counts as unhealthy, as in preflight; on Slurm the job goes on
    without it."""
    timing_every: int | None = Field(default=100, ge=1)
    """Gather every so many steps how long each rank computes, waits and reads; null: never."""
    straggler: float = Field(default=1.5, gt=1)
    """A rank that takes so many times the median is named."""
