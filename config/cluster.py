"""The `cluster` section and profiles: where ranks run. A profile holds the same fields; the run file wins."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from .base import SLURM_WORD, Section
from .container import ContainerConfig
from .preemptible import PreemptibleConfig

_TIME = r"^(\d+|\d+:\d{2}|\d+:\d{2}:\d{2}|\d+-\d+(:\d{2}){0,2})$"  # the forms sbatch takes


class ClusterConfig(Section):
    """Where and on what the run runs."""

    profile: str = Field(default="local", min_length=1)
    """Profile beneath these fields: local, dev, or NAME.yaml beside the run file or in the user's config folder."""
    scheduler: Literal["local", "slurm"] = "local"
    """Who starts the ranks: this machine, or Slurm."""
    nodes: int = Field(default=1, ge=1)
    """Number of nodes."""
    ranks_per_node: int = Field(default=1, ge=1)
    """Ranks per node: one per GPU, or processes on a CPU node."""
    gpus_per_node: int = Field(default=0, ge=0)
    """GPUs asked of Slurm for each node; 0 trains on CPU."""
    gpu_type: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_.\-]*$")
    """Type of these GPUs in Slurm's words, such as h100; any type if not given."""
    expected_tflops: float | None = Field(default=None, gt=0)
    """Tflop/s of a healthy rank in the preflight's matrix products (bf16 on GPUs, fp32 on CPU; its log says what was
    reached); if not given, ranks are compared to each other alone."""
    cpus_per_rank: int = Field(default=1, ge=1)
    """CPU cores per rank."""
    memory_per_node: str | None = Field(default=None, pattern=r"^\d+[KMGT]?$")
    """Memory per node in Slurm's words, such as 64G; the cluster's default if not given."""
    time_limit: str | None = Field(default=None, pattern=_TIME)
    """Wall-clock limit in Slurm's words, such as 04:00:00; the partition's default if not given."""
    partition: str | None = Field(default=None, pattern=SLURM_WORD)
    """Slurm partition."""
    account: str | None = Field(default=None, pattern=SLURM_WORD)
    """Slurm account to charge."""
    qos: str | None = Field(default=None, pattern=SLURM_WORD)
    """Slurm quality of service."""
    constraint: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.,&|*()\[\]\-]+$")
    """Slurm node features."""
    exclude: str | None = Field(default=None, pattern=SLURM_WORD)
    """Nodes that Slurm must not use."""
    modules: list[str] = Field(default_factory=list)
    """Environment modules loaded in the job."""
    environment: list[str] = Field(default_factory=list)
    """Names of environment variables that pass from the submitting shell into the job; nothing else does. Keys, known
    by names such as WANDB_API_KEY, reach the ranks alone, by a private file and not by Slurm."""
    network_interface: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.\-]+$")
    """Network interface for gloo and NCCL's sockets, such as eth0; if not given, the one that reaches rank 0's node."""
    cpu_bind: str = Field(default="cores", pattern=SLURM_WORD)
    """What srun ties each rank to: its own cores, or another word of Slurm, such as none for sites without it."""
    gpu_bind: str = Field(default="none", pattern=SLURM_WORD)
    """Which GPUs of its node a rank sees, in Slurm's words. All of them by default, as NCCL needs for its fastest paths
    between two GPUs; a rank takes the one that has its number on the node."""
    mem_bind: str | None = Field(default=None, pattern=SLURM_WORD)
    """NUMA binding of memory, in Slurm's words; not given, memory lies near the cores that touch it first, or elsewhere
    if there is none left."""
    price_per_gpu_hour: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """What a GPU-hour costs, in any currency; `plan` multiplies by it."""
    price_per_cpu_hour: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """What an hour of a CPU core costs where no GPUs are asked for."""
    mtbf_node_hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Mean time between failures of one node, in hours; not given, that of a published training run."""
    tier: Literal["standard", "preemptible"] = "standard"
    """Whether training jobs go to the place of `preemptible`; exports and endpoints do not."""
    preemptible: PreemptibleConfig | None = None
    """Partition, account or QOS whose jobs are cheaper and may be ended for others'; for tier: preemptible."""
    slurm_conf: str | None = Field(default=None, pattern=r"^/[A-Za-z0-9_.,@%+=:/\-]*$")
    """Absolute path of the cluster's slurm.conf; $SLURM_CONF or Slurm's own default if not given."""
    container: ContainerConfig | None = None
    """Image in which the ranks of training jobs run; none if not given."""
    stage_environment: str | None = Field(default=None, pattern=r"^/[A-Za-z0-9_.,@%+=:/\-]*$")
    """Folder on each node's own disk into which the Python environment is unpacked before the ranks of a training job
    start, from one archive: for so many ranks that a shared file system is slow to import from."""
    python: str | None = None
    """Python interpreter on the nodes, outside of a container; the submitting one if not given."""

    @field_validator("time_limit", "memory_per_node", mode="before")
    @classmethod
    def _number_is_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("modules", "environment")
    @classmethod
    def _plain_words(cls, words: list[str]) -> list[str]:
        for word in words:
            if not word or not all(ch.isalnum() or ch in "_-./+@" for ch in word):
                raise ValueError(f"{word!r} is not a plain name")
        return words

    @model_validator(mode="after")
    def _one_environment(self) -> "ClusterConfig":
        if self.stage_environment and self.container:
            raise ValueError("stage_environment and container: the image is the environment; give one of them")
        return self

    @model_validator(mode="after")
    def _tier_is_there(self) -> "ClusterConfig":
        if self.tier == "preemptible" and self.preemptible is None:
            raise ValueError("tier preemptible, but the section `preemptible` is missing; give its partition or qos")
        return self

    def on_tier(self) -> "ClusterConfig":
        """The place of training jobs: with the fields of `preemptible` if that is the tier."""
        if self.tier == "standard" or self.preemptible is None:
            return self
        changes = self.preemptible.model_dump(exclude_none=True)
        changes.pop("hours_between_preemptions", None)
        return self.model_copy(update=changes)

    @property
    def world_size(self) -> int:
        """Ranks over all nodes."""
        return self.nodes * self.ranks_per_node
