"""What only a GPU can show: bf16 on CUDA follows float32 on CPU, goes on after a kill, and exports what it computed.

`make gpu-check` runs these; they need one CUDA device and no network.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trainwright.config.rundir import RunDir
from trainwright.presets import __file__ as presets
from trainwright.serving.export import ExportOptions, export_checkpoint
from trainwright.serving.logits_check import compare_logits
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.checkpoints.checkpoint import find_checkpoint

from ..integration.real_runs import curve, engines_logits, go_on, kill_at_random, start, train

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1200)]
STEPS = 50
QUICKSTARTS = {"dense": "quickstart.yaml", "moe": "quickstart-moe.yaml"}
ONE_RANK = [
    *(f"parallelism.{axis}=1" for axis in ("tensor", "expert")),
    "parallelism.sequence=false",
    "cluster.ranks_per_node=1",
    "tracking.wandb.mode=disabled",
    "checkpoint.every_steps=10",
]


@contextmanager
def without_gpu() -> Iterator[None]:
    """Runs started meanwhile see no CUDA device."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


@pytest.fixture(scope="module", params=QUICKSTARTS)
def run_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quickstart's own run file and model, on a little of the standard library's source."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "presets").symlink_to(Path(presets).parent)
    (folder / "stores").mkdir()
    text = Path(random.__file__).parent
    sources = [text / name for name in ("asyncio", "email", "json", "unittest", "argparse.py", "typing.py")]
    build_store(sources, folder / "stores" / "stdlib.zarr", BuildOptions(vocab_size=512), lambda *_: None)
    (folder / "run.yaml").write_text((Path(presets).parent / QUICKSTARTS[request.param]).read_text())
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def on_gpu(run_file: Path) -> RunDir:
    """Fifty steps in bf16 on one GPU."""
    return train(run_file, "gpu", [*ONE_RANK, f"train.steps={STEPS}", "train.precision=bf16"])


def test_bf16_on_cuda_follows_float32_on_cpu(run_file: Path, on_gpu: RunDir) -> None:
    with without_gpu():
        expected = curve(train(run_file, "cpu", [*ONE_RANK, f"train.steps={STEPS}", "train.precision=fp32"]))
    found = curve(on_gpu)
    worst = max(abs(found[step][0] - expected[step][0]) / expected[step][0] for step in expected)
    print(f"largest relative difference of the loss over {STEPS} steps: {worst:.1e}")
    assert found.keys() == expected.keys()
    assert worst <= 1e-2


def test_transformer_engines_layers_compute_the_same(run_file: Path, on_gpu: RunDir) -> None:
    pytest.importorskip("transformer_engine")
    ours = [*ONE_RANK, f"train.steps={STEPS}", "train.precision=bf16", "parallelism.transformer_engine=never"]
    expected, found = curve(train(run_file, "ours", ours)), curve(on_gpu)
    worst = max(abs(found[step][0] - expected[step][0]) / expected[step][0] for step in expected)
    print(f"largest relative difference of the loss over {STEPS} steps: {worst:.1e}")
    assert worst <= 1e-2


def test_a_killed_run_goes_on(run_file: Path, on_gpu: RunDir) -> None:
    """Sums on a GPU may be added in another order each time, so the curves are close, not equal."""
    run = start(run_file, "killed", [*ONE_RANK, f"train.steps={STEPS}", "train.precision=bf16"])
    kill_at_random(run, STEPS // 4, 4 * STEPS // 5)
    go_on(run)
    found, expected = curve(run), curve(on_gpu)
    assert found.keys() == expected.keys()
    worst = max(abs(found[step][0] - expected[step][0]) / expected[step][0] for step in expected)
    print(f"largest relative difference of the loss from the run that nobody killed: {worst:.1e}")
    assert worst <= 5e-3


def test_export_computes_what_the_engine_computed(on_gpu: RunDir, tmp_path: Path) -> None:
    export_checkpoint(find_checkpoint(str(on_gpu.path)), tmp_path / "export", ExportOptions(dtype="float32"))
    tokens, logits = engines_logits(on_gpu, tmp_path / "logits.npz", shape=(2, 64))
    difference = compare_logits(tmp_path / "export", tokens, logits)["max_rel"]
    print(f"transformers on CPU against the engine on CUDA, float32: {difference:.1e}")
    assert difference <= 1e-3  # a GPU may take TF32 for float32 products
