"""The run file as one frozen tree."""

from typing import Literal

from pydantic import Field

from .base import Section
from .checkpoint import CheckpointConfig
from .cluster import ClusterConfig
from .data import DataConfig
from .evaluation import EvaluationConfig
from .guards import GuardsConfig
from .parallelism import ParallelismConfig
from .preflight import PreflightConfig
from .restarts import RestartsConfig
from .tracking import TrackingConfig
from .train import TrainConfig

SECTIONS = (
    "data",
    "parallelism",
    "train",
    "checkpoint",
    "evaluation",
    "guards",
    "tracking",
    "preflight",
    "restarts",
    "cluster",
)


class RunConfig(Section):
    """One run: what is trained, on what data, how it is shared between ranks, and where it runs."""

    schema_version: Literal[1]
    """Version of this file's form."""
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Name of the run: letters, digits, dot, dash, underscore."""
    runs: str = "runs"
    """Folder in which run directories are made, relative to the run file."""
    model: str
    """A Hugging Face config.json, relative to the run file: the only description of the model."""
    data: DataConfig
    """Token stores and data order."""
    parallelism: ParallelismConfig = ParallelismConfig()
    """Layout of the ranks."""
    train: TrainConfig
    """Steps, batch, precision, optimizer, schedule."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """When to save and what to keep."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Held-out data, and how often the loss on it is measured."""
    guards: GuardsConfig = GuardsConfig()
    """What is done about a step that looks wrong."""
    tracking: TrackingConfig = TrackingConfig()
    """What is recorded."""
    preflight: PreflightConfig = PreflightConfig()
    """What is checked on every node before the first step."""
    restarts: RestartsConfig = RestartsConfig()
    """How often a job on Slurm goes on by itself."""
    cluster: ClusterConfig = ClusterConfig()
    """Where the ranks run."""
