"""The `restarts` section: how often a Slurm job that ended early goes on by itself, by cause."""

from pydantic import Field

from .base import Section


class RestartsConfig(Section):
    """Restarts of one submission. Each cause has its own budget; a cancelled or finished run is never restarted."""

    crashes: int = Field(default=3, ge=0)
    """Restarts after a rank crashed or was killed."""
    nodes: int = Field(default=10, ge=0)
    """Restarts on other nodes after a node failed or was found unhealthy."""
    hangs: int = Field(default=3, ge=0)
    """Restarts after ranks waited for each other in vain."""
    preemptions: int = Field(default=1000, ge=0)
    """Restarts after another job took the nodes, or somebody asked the run to save and leave."""
    time_limits: int = Field(default=1000, ge=0)
    """Restarts after the time limit of the job."""
    without_progress: int = Field(default=3, ge=1)
    """Attempts in a row without a new checkpoint after which the run stops, whatever ended them."""
    exclude_hours: float = Field(default=24.0, gt=0)
    """Hours for which a node that was found bad is kept from this run."""
    hang_after_s: float | None = Field(default=None, gt=0)
    """Seconds without a finished step, from the second on, that are a hang; null: 20 median steps, at least 300."""
    hang_outside_steps_s: float = Field(default=1800.0, gt=0)
    """The same for what takes longer: load, first step, a save, the end. A save may also take 10 times the longest."""
