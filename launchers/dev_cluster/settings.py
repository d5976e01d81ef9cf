"""How a dev cluster is configured: what differs from site to site, with defaults that suit trying things out."""

from dataclasses import dataclass
from typing import Literal

from ...config.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """The settings of Slurm that decide how a job is stopped, restarted and counted."""

    preemption: bool = False
    """Jobs of a second partition, `urgent`, push those of `main` off their nodes; Slurm requeues them if it may."""
    grace_s: int = 0
    """GraceTime of `main`: seconds between the first signal to a preempted job and its end."""
    user_signal: bool = False
    """preempt_send_user_signal: a preempted job gets the signal of its --signal."""
    kill_wait_s: int = 10
    """KillWait: seconds between SIGTERM and SIGKILL."""
    slurmd_timeout_s: int = 60
    """SlurmdTimeout: seconds until a node that does not answer is down."""
    job_requeue: bool = False
    """JobRequeue: jobs that do not say otherwise may be requeued."""
    max_array_size: int = 1001
    """MaxArraySize: one more than the greatest index of an array."""
    proctrack: Literal["linuxproc", "pgid"] = "linuxproc"
    """ProctrackType: which processes are a step's: all descendants, or one process group."""
    gpus_per_node: int = 0
    """GPUs that Slurm counts on each node; there are device files for them and nothing behind these."""
    gpu_type: str = "h100"
    """What Slurm calls these GPUs."""
    max_time: str = "INFINITE"
    """MaxTime of both partitions, in Slurm's words."""
    accounting: Literal["none", "kept", "enforced"] = "none"
    """Whether slurmdbd keeps accounts (needs MariaDB), and whether only users with an association may submit."""

    def __post_init__(self) -> None:
        for name, value, least in (
            ("grace_s", self.grace_s, 0),
            ("kill_wait_s", self.kill_wait_s, 1),
            ("slurmd_timeout_s", self.slurmd_timeout_s, 0),
            ("max_array_size", self.max_array_size, 1),
            ("gpus_per_node", self.gpus_per_node, 0),
        ):
            if not least <= value <= 65533:
                raise UserError(f"dev cluster's {name}", str(value), f"give a number from {least} to 65533")
        if (self.grace_s or self.user_signal) and not self.preemption:
            what = "grace time" if self.grace_s else "user signal"
            raise UserError("cluster dev", f"{what} without preemption would do nothing", "add --preemption")
