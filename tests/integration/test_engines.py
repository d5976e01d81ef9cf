"""Two engines, one training: step by step the same, and any engine and layout goes on from any other's checkpoint."""

import random
from pathlib import Path

import pytest

from trainwright.config.rundir import RunDir

from .real_runs import (
    DEEPSPEED_LAYOUTS,
    GLM4_MOE,
    IN_MATRIX,
    LAYOUTS,
    MOE_LAYOUTS,
    ONE_RANK,
    QWEN2_MOE,
    Model,
    curve,
    digests,
    go_on,
    largest_difference,
    make_project,
    train,
)

pytestmark = pytest.mark.ranks
STEPS = 20
DENSE = {name: LAYOUTS[name] for name in ("tp2_sp", "tp2_pp2", "pp2_vpp2", "cp2", "dp2")} | DEEPSPEED_LAYOUTS
EXPERTS = {name: MOE_LAYOUTS[name] for name in ("ep2_zero", "etp2", "pp2_ep2", "cp2_ep2", "tp2_sp")} | DEEPSPEED_LAYOUTS
KINDS = {"dense": (Model("llama", tied=True), DENSE), "moe": (QWEN2_MOE, EXPERTS), "biased": (GLM4_MOE, EXPERTS)}
ROUTER = ["train.router.z_loss_coef=1.0e-3"]


@pytest.fixture(scope="module", params=[*KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def project(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp(kind), KINDS[kind][0])


@pytest.fixture(scope="module")
def reference(project: Path, kind: str) -> RunDir:
    """megatron-core on one rank; it keeps every step's state."""
    kept = ["checkpoint.every_steps=1", "checkpoint.keep=100"]
    return train(project, "reference", [f"train.steps={STEPS + 1}", *kept, *_router(kind)])


def _router(kind: str) -> list[str]:
    return [] if kind == "dense" else ROUTER


@IN_MATRIX
def test_deepspeed_makes_each_of_megatrons_steps(project: Path, kind: str, reference: RunDir) -> None:
    expected, worst = curve(reference), 0.0
    for step in range(1, STEPS + 1):
        start = [f"checkpoint.resume_from={reference.checkpoint(step)}", f"train.steps={step + 1}", *_router(kind)]
        run = train(project, f"deepspeed-{step}", [*start, *DEEPSPEED_LAYOUTS["zero3"]])
        worst = max(worst, largest_difference({step + 1: expected[step + 1]}, curve(run)))
    print(f"{kind}: largest relative difference of loss and gradient norm {worst:.1e}")
    assert worst <= 1e-5


@IN_MATRIX
def test_one_state_saved_by_all_is_one_checkpoint(project: Path, kind: str, reference: RunDir) -> None:
    """Loaded and saved again, without a step: every tensor of every slot, bit by bit."""
    expected = digests(reference.checkpoint(5), project)
    assert len(set(expected.values())) > len(expected) // 2
    for name, layout in KINDS[kind][1].items():
        start = [f"checkpoint.resume_from={reference.checkpoint(5)}", "train.steps=5"]
        run = train(project, f"again-{name}", [*start, *layout])
        assert digests(run.checkpoint(5), project) == expected, name
        print(f"{kind}: {name}: {len(expected)} tensors equal")


@IN_MATRIX
def test_pairs(project: Path, kind: str) -> None:
    """Three steps in one layout, three more in another, against six in the first."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    draw, layouts = random.Random(seed), KINDS[kind][1]
    pairs = [tuple(draw.sample([*layouts], 2)) for _ in range(6)]
    for number, (first, second) in enumerate(pairs):
        whole = train(project, f"whole-{number}", ["train.steps=6", *_router(kind), *layouts[first]])
        run = train(project, f"pair-{number}", ["train.steps=3", *_router(kind), *layouts[first]])
        go_on(run, ["train.steps=6", *ONE_RANK, *layouts[second]])
        difference = largest_difference(curve(whole), curve(run))
        print(f"{kind}: {first} -> {second}: largest relative difference {difference:.1e}")
        assert difference <= 1e-5


@IN_MATRIX
@pytest.mark.parametrize("zero", [1, 2, 3])
def test_deepspeed_in_bfloat16_goes_on_bit_by_bit(project: Path, zero: int) -> None:
    """Its float32 weights and moments are in the checkpoint; ZeRO 1 has an optimizer of its own for bfloat16."""
    layout = [*DEEPSPEED_LAYOUTS["zero1"], f"parallelism.zero={zero}", "train.precision=bf16", "train.steps=4"]
    whole = train(project, f"bf16-{zero}", [*layout, "checkpoint.every_steps=2"])
    run = train(project, f"bf16-{zero}-on", [*layout, f"checkpoint.resume_from={whole.checkpoint(2)}"])
    assert curve(run) == {step: values for step, values in curve(whole).items() if step > 2}
