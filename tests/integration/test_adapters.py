"""Adapters of low rank: trained by DeepSpeed beside weights from elsewhere, the same on all layouts; given out."""

from pathlib import Path

import pytest

from trainwright.config.errors import UserError
from trainwright.config.rundir import RunDir
from trainwright.launchers.another_attempt import continue_run
from trainwright.serving.engine_check import check_by_engine
from trainwright.serving.export import ExportOptions, export_checkpoint
from trainwright.storage.checkpoints.checkpoint import find_checkpoint

from .real_runs import (
    DEEPSPEED_LAYOUTS,
    IN_MATRIX,
    ONE_RANK,
    QWEN2_MOE,
    WHOLE,
    Model,
    curve,
    go_on,
    killed_and_resumed,
    largest_difference,
    make_project,
    start,
    train,
)

pytest.importorskip("peft")
pytestmark = [pytest.mark.ranks, pytest.mark.timeout(900)]
STEPS = 12
TARGETS = "[q_proj,v_proj,o_proj,gate_proj,up_proj,down_proj]"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run file beside the weights of a run that has learnt something."""
    return _project(tmp_path_factory.mktemp("adapters"), Model("qwen3", tied=True))


def _project(folder: Path, model: Model) -> Path:
    run_file = make_project(folder, model)
    run = train(run_file, "base", ["train.steps=20"])
    export_checkpoint(find_checkpoint(str(run.path)), run_file.parent / "given", ExportOptions(dtype="float32"))
    return run_file


def _lora(project: Path, layout: str, targets: str = TARGETS) -> list[str]:
    fields = f"train.lora={{rank: 4, alpha: 8.0, targets: {targets}}}"
    start = [f"checkpoint.init_from={project.parent / 'given'}", "train.optimizer.lr=5.0e-3"]
    return [*DEEPSPEED_LAYOUTS[layout], *start, fields, f"train.steps={STEPS}", "checkpoint.every_steps=3"]


@pytest.fixture(scope="module")
def whole(project: Path) -> RunDir:
    """ZeRO 3 on two ranks, left alone."""
    return train(project, "whole", _lora(project, "zero3"))


def test_given_out_merged_and_alone(whole: RunDir, project: Path, tmp_path: Path) -> None:
    """As a model that has the adapters in its weights, and as peft's own files beside the base: the same logits."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    checkpoint = find_checkpoint(str(whole.path))
    assert all(".lora_" in name for name in checkpoint.shapes()), "adapters alone"
    merged, adapter = tmp_path / "merged", tmp_path / "adapter"
    export_checkpoint(checkpoint, merged, ExportOptions(dtype="float32", check=WHOLE))
    export_checkpoint(checkpoint, adapter, ExportOptions(dtype="float32", adapter=True))
    files = {path.name for path in adapter.iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors", "trainwright.json"}
    tokens = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(project.parent / "given")
        plain = base(tokens).logits
        beside = PeftModel.from_pretrained(base, adapter)(tokens).logits
        together = AutoModelForCausalLM.from_pretrained(merged)(tokens).logits
    assert (plain - together).abs().max() > 1e-2, "adapters do something"
    torch.testing.assert_close(beside, together, rtol=1e-4, atol=1e-4)


@IN_MATRIX
def test_it_begins_as_its_base_learns_and_goes_on_bitwise(whole: RunDir, project: Path) -> None:
    losses = [loss for loss, _ in curve(whole).values()]
    plain = train(project, "plain", [*_lora(project, "zero1"), "train.lora=null", "train.steps=1"])
    assert losses[0] == pytest.approx(curve(plain)[1][0], rel=1e-6), "an adapter does nothing at first"
    print(f"losses {losses}")
    assert sum(losses[-4:]) < sum(losses[:4])
    assert killed_and_resumed(project, "killed", _lora(project, "zero3"), STEPS) == curve(whole)


@IN_MATRIX
def test_layouts_agree(project: Path) -> None:
    one = train(project, "one", [*_lora(project, "zero3"), "cluster.ranks_per_node=1", "parallelism.zero=1"])
    for layout in DEEPSPEED_LAYOUTS:
        difference = largest_difference(curve(one), curve(train(project, f"as-{layout}", _lora(project, layout))))
        print(f"{layout}: {difference:.1e}")
        assert difference <= 1e-5
    run = train(project, "moved", [*_lora(project, "zero1"), "train.steps=6"])
    go_on(run, [*ONE_RANK, *DEEPSPEED_LAYOUTS["zero3"], f"train.steps={STEPS}"])
    assert largest_difference(curve(one), curve(run)) <= 1e-5


@IN_MATRIX
def test_attention_of_a_mixture_of_experts(tmp_path: Path) -> None:
    project = _project(tmp_path, QWEN2_MOE)
    run = train(project, "moe", _lora(project, "zero3", "[q_proj,k_proj,v_proj,o_proj]"))
    export_checkpoint(find_checkpoint(str(run.path)), tmp_path / "out", ExportOptions(dtype="float32"))
    assert check_by_engine(run.path, find_checkpoint(str(run.path)).folder, tmp_path / "out") <= 1e-5


def test_another_base_is_refused(whole: RunDir, project: Path, tmp_path: Path) -> None:
    """Adapters mean nothing beside other weights."""
    weights = project.parent / "given" / "model.safetensors"
    good = weights.read_bytes()
    try:
        weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(UserError, match=r"^checkpoint\.init_from: .* has other weights than the adapters"):
            export_checkpoint(find_checkpoint(str(whole.path)), tmp_path / "out", ExportOptions(dtype="float32"))
        with pytest.raises(UserError, match=r"^checkpoint\.init_from"):
            continue_run(whole, ["train.steps=20"])
    finally:
        weights.write_bytes(good)
    base = find_checkpoint(str(whole.path.parent / "base"))
    with pytest.raises(UserError, match=r"^--adapter: .* trains all weights"):
        export_checkpoint(base, tmp_path / "out", ExportOptions(adapter=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["parallelism.engine=megatron"], "train.lora: rank 4 with engine megatron"),
        (["checkpoint.init_from=null"], "train.lora: without checkpoint.init_from"),
        (["cluster.ranks_per_node=2", "parallelism.tensor=2"], "parallelism.tensor: 2 with train.lora"),
        (["train.router.bias_update_rate=0.1"], "train.router.bias_update_rate: 0.1 with train.lora"),
        (["train.lora.targets=[q_proj,q_proj]"], "names one twice"),
        (["train.lora.targets=[lm_head]"], "train.lora.targets"),
    ],
)
def test_mistakes(project: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        start(project, "mistake", [*_lora(project, "zero1"), *overrides])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
