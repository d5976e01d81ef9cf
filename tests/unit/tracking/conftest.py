"""A run and its directory for the recorder, and steps to record."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from trainwright.config.loading import load_run
from trainwright.config.run import RunConfig
from trainwright.config.rundir import RunDir, create_run_dir
from trainwright.tracking.recorder import StepRecord

from .fake_nvml import FakeNvml, build
from .wandb_server import WandbServer


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return create_run_dir(tmp_path / "runs", "tiny")


@pytest.fixture
def run(run_file: Path) -> RunConfig:
    return load_run(run_file, ["train.steps=30"])


@pytest.fixture
def silent_run(run_file: Path) -> RunConfig:
    """The same run without W&B."""
    return load_run(run_file, ["train.steps=30", "tracking.wandb.mode=disabled"])


@pytest.fixture
def make_record() -> Callable[..., StepRecord]:
    """Makes the record of a step; the loss falls with the step unless given."""

    def make(step: int, loss: float | None = None) -> StepRecord:
        value = 7 * math.exp(-step / 20) if loss is None else loss
        return StepRecord(step=step, loss=value, grad_norm=1 / 3, lr=1e-3, tokens=4096, seconds=0.25)

    return make


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the stand-in for libnvidia-ml.so.1."""
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def fake_nvml(nvml_library: Path, tmp_path: Path) -> FakeNvml:
    """The stand-in with a state of this test's own: two GPUs."""
    fake = FakeNvml(nvml_library, tmp_path / "nvml-state")
    fake.set(count=2)
    return fake


@pytest.fixture
def server() -> Iterator[WandbServer]:
    """A W&B server on loopback."""
    serving = WandbServer()
    yield serving
    serving.close()


@pytest.fixture
def frozen(run: RunConfig, run_dir: RunDir) -> RunDir:
    """A run directory with its run file, as `submit` leaves it."""
    run_dir.run_yaml.write_text(yaml.safe_dump(run.model_dump(mode="json")))
    return run_dir
