"""How long before its time limit a job is warned: long enough for a save, by what saves of this run have taken."""

from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..tracking.save_times import save_seconds
from .local_controller import seconds

_FIRST_LEAD_S = 180
"""Before any save was measured."""
_MARGIN_S = 60
"""Slurm looks at time limits now and then: its warning may come this much off."""


def signal_lead(run_dir: RunDir, run: RunConfig) -> int:
    """Seconds for `--signal`: three times the longest save so far and a minute, and at most half of the time limit."""
    limit_s = seconds(run.cluster.time_limit)
    most = 65535 if limit_s is None else int(limit_s / 2)  # sbatch takes no more than 65535
    saves = save_seconds(run_dir)
    wanted = _FIRST_LEAD_S if not saves else round(3 * max(saves)) + _MARGIN_S
    return max(1, min(wanted, most))
