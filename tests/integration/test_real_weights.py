"""Weights that were trained on real text: taken in, trained on in another engine and layout, given out, served."""

import random
from pathlib import Path

import pytest

from trainwright.serving.export import ExportOptions, export_checkpoint
from trainwright.serving.logits_check import compare_logits
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.building.sources import Selection
from trainwright.storage.checkpoints.checkpoint import find_checkpoint

from .real_runs import (
    DEEPSPEED_LAYOUTS,
    IN_MATRIX,
    LAYOUTS,
    VOCABULARY,
    Model,
    curve,
    engines_logits,
    make_project,
    train,
)
from .vllm_parity import Target, compare_greedy, served

pytestmark = [pytest.mark.ranks, pytest.mark.vllm, pytest.mark.timeout(1800), IN_MATRIX]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on this project's own code, as a Hugging Face folder beside its run file."""
    folder = tmp_path_factory.mktemp("real")
    run_file = make_project(folder, Model("qwen3", tied=True).with_wide_heads())
    options = BuildOptions(vocab_size=VOCABULARY, selection=Selection(extensions=(".py",)))
    build_store([ROOT / "config", ROOT / "storage"], folder / "code.zarr", options, lambda *_: None)
    run_file.write_text(run_file.read_text().replace("store.zarr", "code.zarr"))
    run = train(run_file, "before", ["train.steps=150", "train.schedule={name: cosine, warmup_steps: 10}"])
    losses = [loss for loss, _ in curve(run).values()]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f} in {len(losses)} steps")
    assert losses[-1] < 0.75 * losses[0]
    export_checkpoint(find_checkpoint(str(run.path)), folder / "given", ExportOptions(dtype="float32"))
    return run_file


@pytest.mark.parametrize("layout", ["tp2_pp2", "zero3"])
def test_taken_in_trained_on_and_given_out(trained: Path, tmp_path: Path, layout: str) -> None:
    given = trained.parent / "given"
    overrides = [f"checkpoint.init_from={given}", *(LAYOUTS | DEEPSPEED_LAYOUTS)[layout]]
    first = train(trained, f"at-once-{layout}", [*overrides, "train.steps=0"])
    tokens, logits = engines_logits(first, tmp_path / "first.npz")
    at_once = compare_logits(given, tokens, logits)["max_rel"]
    run = train(trained, f"ten-{layout}", [*overrides, "train.steps=10", "train.optimizer.lr=3.0e-4"])
    export_checkpoint(find_checkpoint(str(run.path)), tmp_path / "out", ExportOptions(dtype="float32"))
    tokens, logits = engines_logits(run, tmp_path / "ten.npz")
    after = compare_logits(tmp_path / "out", tokens, logits)["max_rel"]
    print(f"{layout}: logits at step 0 within {at_once:.1e} of transformers', after ten steps within {after:.1e}")
    assert max(at_once, after) <= 1e-5
    losses = [loss for loss, _ in curve(run).values()]
    assert max(losses) < 5.0, "training went on from the weights: random ones give 6"
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    prompts = [[draw.randrange(VOCABULARY) for _ in range(draw.randint(4, 30))] for _ in range(20)]
    with served(tmp_path / "out", tmp_path / "state", "float32") as endpoint:
        parity = compare_greedy(tmp_path / "out", Target.of(endpoint), prompts)
    print(f"{layout}: vLLM on the export: {parity}")
    assert parity.wrong == []
