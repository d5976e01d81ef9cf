"""The rendered scripts, whole, against golden files; and that bash and a Slurm admin's eyes can read them.

After a wanted change: `UPDATE_GOLDEN=1 pytest tests/unit/launchers/test_script.py`, then read the difference.
"""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from trainwright.config.cluster import ClusterConfig
from trainwright.config.container import ContainerConfig
from trainwright.launchers.environment_archive import Environment
from trainwright.launchers.job import TaskSpec, render_script, run_module
from trainwright.launchers.rank import run_attempt
from trainwright.launchers.script import SupervisedRun

_GOLDEN = Path(__file__).parents[2] / "golden"
_RUN = Path("/shared/runs/tiny")
_DEV = ClusterConfig(
    profile="dev",
    scheduler="slurm",
    nodes=2,
    ranks_per_node=2,
    partition="main",
    time_limit="01:00:00",
    slurm_conf="/tmp/trainwright-dev-cluster/slurm.conf",
    python="/opt/venv/bin/python",
)
_BIG = ClusterConfig(
    profile="big",
    scheduler="slurm",
    nodes=64,
    ranks_per_node=8,
    gpus_per_node=8,
    cpus_per_rank=12,
    memory_per_node="1800G",
    time_limit="2-12:00:00",
    partition="gpu",
    account="nlp",
    qos="long",
    constraint="h100&nvlink",
    exclude="gpu[007,011-012]",
    modules=["gcc/13", "nccl"],
    environment=["HF_HOME", "WANDB_API_KEY"],
    python="/shared/My Python/bin/python",
)


def _training(cluster: ClusterConfig, run: Path) -> TaskSpec:
    return TaskSpec(
        name="tiny",
        title=f"Trainwright: run {run.name}, attempt 1",
        function=run_attempt,
        arguments=(str(run), 1),
        cluster=cluster,
        directory=run,
        folder=run / "jobs",
        logs=run / "logs" / "0001",
        code=run / "snapshot" / "code",
        template="train.sbatch",
        seen=(run.parent, Path("/shared/stores/code.zarr")),
        run=SupervisedRun(folder=str(run), attempt=1, lead_s=180, snapshot="0123abcd" * 8),
    )


def _serving() -> TaskSpec:
    folder = _RUN / "endpoint"
    return TaskSpec(
        name="serve-tiny",
        title="Endpoint tiny: one vLLM replica and its front",
        function=run_module,
        arguments=("trainwright.serving.replica", str(folder)),
        cluster=_DEV.model_copy(update={"nodes": 1, "ranks_per_node": 1, "cpus_per_rank": 4}),
        directory=folder,
        folder=folder / "jobs",
        logs=folder / "logs",
        template="serve.sbatch",
        environment=("TRAINWRIGHT_VLLM_PYTHON",),
    )


def _building() -> TaskSpec:
    """An array, here one that waits for other jobs too."""
    folder = Path("/shared/stores/.text.zarr.building")
    return TaskSpec(
        name="build-text.zarr",
        title="Tokenizes parts of text.zarr.",
        function=run_module,
        arguments=("trainwright.storage.building.array", "parts", str(folder), "16"),
        cluster=_DEV.model_copy(update={"nodes": 1, "ranks_per_node": 1}),
        directory=Path("/shared"),
        folder=folder / "jobs" / "parts",
        logs=folder / "jobs" / "logs",
        array=16,
        after=("41", "42"),
    )


_IMAGE = ContainerConfig(image="/img/nemo.sif", mounts=["/data:/d:ro"])
_NAMED = ContainerConfig(image="nvcr.io#nvidia/pytorch:25.10-py3", runtime="pyxis")


def _sweep() -> TaskSpec:
    """An array of runs, the second of its sweep."""
    folder = Path("/shared/runs/.arrays/tiny-2")
    return replace(
        _training(_DEV, _RUN),
        title="Trainwright: sweep tiny, 3 runs, attempt 1 of each",
        directory=folder,
        folder=folder,
        logs=folder,
        run=SupervisedRun(folder=str(folder), attempt=1, lead_s=180, snapshot="0123abcd" * 8),
        array=3,
        at_once=2,
        after_any="41",
    )


def _pack() -> TaskSpec:
    """Four runs to a node, in two jobs."""
    share = _BIG.model_copy(update={"nodes": 1, "ranks_per_node": 2, "gpus_per_node": 2, "memory_per_node": "400G"})
    folder = Path("/shared/runs/.arrays/tiny-3")
    return replace(
        _training(share, _RUN),
        title="Trainwright: sweep tiny, 8 runs, attempt 1 of each",
        directory=folder,
        folder=folder,
        logs=folder,
        template="pack.sbatch",
        run=SupervisedRun(folder=str(folder), attempt=1, lead_s=180, snapshot="0123abcd" * 8),
        array=2,
        side_by_side=4,
    )


def _staged() -> TaskSpec:
    """From a copy of the environment on each node."""
    archive = Path("/shared/runs/.environments/4567cdef/environment.tar")
    return replace(
        _training(_BIG.model_copy(update={"stage_environment": "/local/scratch"}), _RUN),
        staged=Environment(archive=archive, sha256="89abcdef" * 8, num_bytes=1),
    )


_SPECS = {
    "train-staged.sbatch": _staged(),
    "train-sweep.sbatch": _sweep(),
    "train-pack.sbatch": _pack(),
    "train-apptainer.sbatch": _training(_BIG.model_copy(update={"modules": [], "container": _IMAGE}), _RUN),
    "train-pyxis.sbatch": _training(_DEV.model_copy(update={"container": _NAMED}), _RUN),
    "train-dev.sbatch": _training(_DEV, _RUN),
    "train-big.sbatch": _training(_BIG, Path("/shared/it's 100% big/runs/tiny")),
    "serve.sbatch": _serving(),
    "build-parts.sbatch": _building(),
}


@pytest.mark.parametrize("name", _SPECS)
def test_script_is_the_golden_one(name: str) -> None:
    text = render_script(_SPECS[name])
    if os.environ.get("UPDATE_GOLDEN"):
        (_GOLDEN / name).write_text(text)
    assert text == (_GOLDEN / name).read_text()


@pytest.mark.parametrize("name", _SPECS)
def test_bash_can_parse_it(name: str) -> None:
    subprocess.run(["bash", "-n"], input=render_script(_SPECS[name]), text=True, check=True)


def test_values_of_passed_variables_are_in_no_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "tiny-secret-0123456789")
    text = render_script(_SPECS["train-big.sbatch"])
    assert "HF_HOME" in text
    assert "WANDB_API_KEY" not in text, "not even the name: Slurm is not told of it"
    assert "tiny-secret" not in text


def test_a_module_that_does_not_load_ends_the_job(tmp_path: Path) -> None:
    spec = _training(_BIG.model_copy(update={"modules": ["no-such-module"], "python": "/bin/echo"}), tmp_path)
    script = tmp_path / "script.sh"
    script.write_text(render_script(spec))
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False, timeout=30)
    assert "trainwright: module load failed" in done.stderr
    assert done.stdout.split()[-6:] == ["1", "--signal", "--message", "module", "load", "failed"]
