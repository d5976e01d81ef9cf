"""The `cluster.preemptible` section: where jobs are cheaper, since Slurm may end them for others."""

from pydantic import Field

from .base import SLURM_WORD, Section


class PreemptibleConfig(Section):
    """What is different there; what is not given is as in the rest of the cluster's section."""

    partition: str | None = Field(default=None, pattern=SLURM_WORD)
    """Slurm partition."""
    account: str | None = Field(default=None, pattern=SLURM_WORD)
    """Slurm account to charge."""
    qos: str | None = Field(default=None, pattern=SLURM_WORD)
    """Slurm quality of service."""
    price_per_gpu_hour: float | None = Field(default=None, ge=0)
    """What a GPU-hour costs there."""
    price_per_cpu_hour: float | None = Field(default=None, ge=0)
    """What an hour of a CPU core costs there, where no GPUs are asked for."""
    hours_between_preemptions: float | None = Field(default=None, gt=0)
    """Mean time until a job is preempted, in hours, as the site's users see it; not known if not given."""
