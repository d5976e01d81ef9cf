"""What all tests share: a small valid run file; skipping what this machine cannot run, said once with the remedy."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .s3_server import S3

_SLURM_PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "ip")
_GET_SLURM = "as root on Debian or Ubuntu: apt-get install slurm-wlm munge iproute2"
_NO_SLURM = "needs Slurm and root"
_INTEGRATION = Path(__file__).parent / "integration"
_USES_SLURM = "mark." + "slurm"

RUN_YAML = """\
schema_version: 1
name: tiny
model: model/config.json
data: {train: [{store: store.zarr}], sequence_length: 32}
train: {steps: 4, global_batch_size: 4}
"""
MODEL = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def pytest_configure(config: pytest.Config) -> None:
    """In the background a shell ignores Ctrl-C for what it starts, and the programs under test would inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With pytest-xdist: a file of integration tests is run whole by one worker, which makes its fixtures once.

    Files that need the dev cluster count as one file: they share a user and a cluster.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            path = Path(config.rootpath, nodeid.partition("::")[0])
            if not path.is_relative_to(_INTEGRATION):
                return nodeid
            return "slurm" if _USES_SLURM in path.read_text() else str(path)

    return ByFile(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU or Slurm where there is none."""
    if item.get_closest_marker("gpu") and not Path("/proc/driver/nvidia/version").exists():
        pytest.skip("needs a CUDA device")
    if item.get_closest_marker("slurm") and not slurm_is_here():
        pytest.skip(_NO_SLURM)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once how to get what the Slurm tests need."""
    count = sum(_NO_SLURM in str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))
    if count:
        terminalreporter.write_line(f"{count} Slurm tests skipped: they need Slurm and root; {_GET_SLURM}")


def slurm_is_here() -> bool:
    """Whether this machine can start Slurm's daemons."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    return os.geteuid() == 0 and all(shutil.which(program, path=path) for program in _SLURM_PROGRAMS)


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    """A valid run file with its model beside it (its token store is only named)."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(MODEL))
    path = tmp_path / "run.yaml"
    path.write_text(RUN_YAML)
    return path


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> "Iterator[S3]":
    """A real S3 server on loopback with an empty bucket, to which this process's environment points."""
    from .s3_server import s3_server

    with s3_server() as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        yield server
