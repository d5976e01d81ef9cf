"""Training and serving in bf16 are two programs: how far their log-probabilities of the same text lie apart."""

import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trainwright.serving.export import ExportOptions, export_checkpoint
from trainwright.storage.checkpoints.checkpoint import find_checkpoint

from .real_runs import LAYOUTS, MOE_LAYOUTS, QWEN3_MOE, WHOLE, Model, engines_logits, make_project, train
from .vllm_parity import Target, served

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.ranks,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not WHOLE, reason="part of `make test-matrix`"),
]
PROMPTS, LENGTH = 200, 32
CASES = [(QWEN3_MOE.with_wide_heads(), "ep2"), (Model("qwen3", False).with_wide_heads(), "tp2_sp")]


def prompt_logprobs(target: Target, prompts: list[list[int]]) -> NDArray[np.float64]:
    """vLLM's log-probability of every token after the first, float64 [n, length - 1]."""
    body = {"model": target.model, "prompt": prompts, "max_tokens": 1, "prompt_logprobs": 0}
    headers = {"Authorization": f"Bearer {target.key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{target.url}/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=300) as answer:
        choices = sorted(json.load(answer)["choices"], key=lambda choice: choice["index"])
    rows = []
    for prompt, choice in zip(prompts, choices, strict=True):
        places = zip(prompt[1:], choice["prompt_logprobs"][1:], strict=True)
        rows.append([place[str(token)]["logprob"] for token, place in places])
    return np.array(rows)


@pytest.mark.parametrize(("model", "layout"), CASES, ids=[model.family for model, _ in CASES])
def test_trainer_and_vllm_agree_in_bf16(tmp_path: Path, model: Model, layout: str) -> None:
    project = make_project(tmp_path, model)
    run = train(project, "run", ["train.steps=30", "train.precision=bf16", *(LAYOUTS | MOE_LAYOUTS)[layout]])
    export_checkpoint(find_checkpoint(str(run.path)), tmp_path / "export", ExportOptions(dtype="bfloat16"))
    tokens, logits = engines_logits(run, tmp_path / "logits.npz", precision="bf16", shape=(PROMPTS, LENGTH))
    wide = logits[:, :-1].astype(np.float64)
    chosen = np.take_along_axis(wide, tokens[:, 1:, None], -1)[..., 0]
    mine = chosen - np.log(np.exp(wide).sum(-1))  # logits are small: nothing overflows
    with served(tmp_path / "export", tmp_path / "state", "bfloat16") as endpoint:
        theirs = prompt_logprobs(Target.of(endpoint), tokens.tolist())
    difference = np.abs(mine - theirs)
    print(f"{model}: mean absolute difference of {mine.size} log-probabilities {difference.mean():.1e}")
    print(f"largest {difference.max():.1e}; the log-probabilities' own spread {mine.std():.2f}")
    assert difference.mean() <= 0.02
    assert mine.std() > 0.5, "flat predictions would agree whatever was computed"
