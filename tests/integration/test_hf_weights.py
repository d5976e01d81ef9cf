"""A Hugging Face model in, no step, out again: the same tensors, bit for bit, under the same names, for vLLM too."""

import json
import random
from pathlib import Path

import pytest
from safetensors import safe_open

from trainwright.config.errors import UserError
from trainwright.serving.export import ExportOptions, export_checkpoint
from trainwright.storage.checkpoints.checkpoint import find_checkpoint

from .real_runs import (
    GLM4_MOE,
    GLM4_MOE_HEAD_NORMS,
    LAYOUTS,
    MIXTRAL,
    MOE_LAYOUTS,
    QWEN2_MOE,
    QWEN3_MOE,
    QWEN3_MOE_UNSCALED,
    VOCABULARY,
    WHOLE,
    Model,
    curve,
    make_project,
    start,
    train,
)
from .vllm_parity import Target, compare_greedy, served

pytestmark = [pytest.mark.vllm, pytest.mark.ranks, pytest.mark.timeout(900)]
LLAMA = Model("llama", False)
CASES = [(LLAMA, "bfloat16", "tp2_pp2"), (QWEN3_MOE, "float32", "pp2_ep2")]
MORE = [
    (MIXTRAL, "bfloat16", "ep4"),
    (QWEN2_MOE, "float32", "tp2_sp_ep2"),
    (QWEN3_MOE_UNSCALED, "bfloat16", "ep2"),
    (Model("qwen2", True), "float16", "dp2"),
    (GLM4_MOE, "bfloat16", "pp2_ep2"),
    (GLM4_MOE_HEAD_NORMS, "float32", "tp2_sp_ep2"),
]


def transformers_folder(config: Path, folder: Path, dtype: str) -> Path:
    """Random weights as transformers itself writes them, in two or more files."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(config.parent))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.to(getattr(torch, dtype))
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):  # float32 in files of every type
            buffer.data = torch.randn(buffer.shape) * 0.1
    model.save_pretrained(folder, max_shard_size="100KB")
    return folder


def tensors(folder: Path) -> dict[str, bytes]:
    """Name -> shape, type and bytes of every tensor of a folder's safetensors files."""
    import torch

    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                tensor = file.get_tensor(name)
                found[name] = repr((tensor.shape, tensor.dtype)).encode() + tensor.view(torch.uint8).numpy().tobytes()
    return found


@pytest.mark.parametrize(("model", "dtype", "layout"), [*CASES, *MORE] if WHOLE else CASES, ids=str)
def test_in_and_out_again(tmp_path: Path, model: Model, dtype: str, layout: str) -> None:
    run_file = make_project(tmp_path, model.with_wide_heads())
    given = transformers_folder(tmp_path / "config.json", tmp_path / "given", dtype)
    overrides = ["checkpoint.init_from=given", "train.steps=0", *(LAYOUTS | MOE_LAYOUTS)[layout]]
    run = train(run_file, "run", overrides)
    assert curve(run) == {}
    export_checkpoint(find_checkpoint(str(run.path)), tmp_path / "out", ExportOptions(dtype=dtype))  # type: ignore[arg-type]
    before, after = tensors(given), tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == []
    from transformers import AutoModelForCausalLM

    _, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    if WHOLE:  # in `make test` the quickstarts do it with what they export
        check_that_vllm_says_the_same(model, given, tmp_path)


def check_that_vllm_says_the_same(model: Model, given: Path, folder: Path) -> None:
    """vLLM on folder/out against transformers on `given`."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    prompts = [[draw.randrange(VOCABULARY) for _ in range(draw.randint(4, 30))] for _ in range(50)]
    with served(folder / "out", folder / "state", "float32") as endpoint:
        parity = compare_greedy(given, Target.of(endpoint), prompts)
    print(f"{model}: {parity}")
    assert parity.num_prompts == 50
    assert parity.wrong == []


def test_weights_that_do_not_fit_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    run_file = make_project(tmp_path, LLAMA)
    given = transformers_folder(tmp_path / "config.json", tmp_path / "given", "float32")
    config = json.loads((tmp_path / "config.json").read_text())
    for change, words in (
        ({"num_hidden_layers": 5}, r"init_from: .*given: lacks model\.layers\.4"),
        ({"intermediate_size": 128}, r"mlp\.\w+_proj\.weight has shape \[96, 64\]"),
        ({"num_hidden_layers": 3}, r"holds model\.layers\.3"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(UserError, match=words):
            start(run_file, "run", ["checkpoint.init_from=given"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    shard = sorted(given.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"{shard.name}: is cut off"):
        start(run_file, "run", ["checkpoint.init_from=given"])
    with pytest.raises(UserError, match="holds neither"):
        start(run_file, "run", ["checkpoint.init_from=text"])
    assert not (tmp_path / "runs").exists()
