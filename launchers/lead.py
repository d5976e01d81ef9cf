"""How long before its time limit a job is warned: long enough for a save, by what saves of this run have taken."""

from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..tracking.save_times import save_seconds
from .local_controller import seconds

_FIRST_LEAD_S = 180
"""Before any save was measured."""
_SBATCH_TAKES_S = 65535
_MARGIN_S = 60
"""Slurm looks at time limits now and then: its warning may come this much off."""


def signal_lead(run_dir: RunDir, run: RunConfig) -> int:
    """Seconds for `--signal`: three times the longest save so far and a minute, and at most half of the time limit."""
    return lead_and_formula(max(save_seconds(run_dir), default=None), run)[0]


def lead_and_formula(longest_save_s: float | None, run: RunConfig) -> tuple[int, str]:
    """The seconds, and how they come about. None: no save was measured."""
    if longest_save_s is None:
        wanted, formula = _FIRST_LEAD_S, f"{_FIRST_LEAD_S} s, before any save was measured"
    else:
        wanted = round(3 * longest_save_s) + _MARGIN_S
        formula = f"3 x {longest_save_s:g} s, the longest save, + {_MARGIN_S} s"
    limit_s = seconds(run.cluster.time_limit)
    most = _SBATCH_TAKES_S if limit_s is None else min(_SBATCH_TAKES_S, int(limit_s / 2))
    if wanted > most:
        formula = f"half of the time limit, since {formula} is more" if limit_s else "the most that sbatch takes"
    return max(1, min(wanted, most)), formula
