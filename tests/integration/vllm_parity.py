"""Does vLLM say what transformers says? Greedy tokens of many prompts, float32 on both sides."""

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from .conftest import CLI

TIE = 1e-4  # below this gap between the two best logits, either token is right
_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Target:
    """An endpoint: base URL ending in /v1, key, and the model's name there."""

    url: str
    key: str
    model: str

    @classmethod
    def of(cls, endpoint: dict[str, Any]) -> "Target":
        """The target that an endpoint's record describes."""
        return cls(endpoint["url"], Path(endpoint["key_file"]).read_text().strip(), endpoint["name"])


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What came of a comparison: prompts, tokens compared, prompts that part at a tie, and those that are wrong."""

    num_prompts: int
    num_tokens: int
    num_ties: int
    wrong: list[str]


@contextmanager
def served(export: Path, state: Path, dtype: str) -> Iterator[dict[str, Any]]:
    """The record of an endpoint of an export; it ends with the context."""
    environment = {**os.environ, "XDG_STATE_HOME": str(state)}
    command = [*CLI, "serve", str(export), "--dtype", dtype, "--kv-cache-gib", "0.0625", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    try:
        yield json.loads(done.stdout)
    finally:
        subprocess.run([*CLI, "serve", "--stop", export.name], env=environment, timeout=120, check=True)


def compare_greedy(export: Path, target: Target, prompts: list[list[int]], num_tokens: int = 32) -> Parity:
    """Greedy tokens from the endpoint against transformers on `export`, both in float32.

    Both get the same prompts as token ids, and go on past the end token. After the first difference in a prompt the two
    continue different texts, so that prompt is judged there: right if transformers' own gap between its two best logits
    is below TIE and vLLM took the second.
    """
    reference = AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32, attn_implementation="sdpa").eval()
    answers = ask(target, prompts, num_tokens)
    compared = ties = 0
    wrong = []
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        assert len(answer) == num_tokens, f"prompt {number}: {len(answer)} tokens"
        logits = _logits(reference, prompt + answer)[len(prompt) - 1 : -1]
        best = logits.argmax(-1)
        parted = np.flatnonzero(best != np.array(answer))
        compared += int(parted[0]) + 1 if parted.size else num_tokens
        if parted.size:
            at = int(parted[0])
            gap = float(logits[at].max() - logits[at][answer[at]])
            ties += gap < TIE
            if gap >= TIE:
                wrong.append(f"prompt {number}, token {at}: {answer[at]} instead of {best[at]}, {gap:.2e} below it")
    return Parity(num_prompts=len(prompts), num_tokens=compared, num_ties=ties, wrong=wrong)


def ask(target: Target, prompts: list[list[int]], num_tokens: int) -> list[list[int]]:
    """Token ids that the endpoint generates greedily, one list per prompt; all prompts go in one request."""
    body = {"model": target.model, "prompt": prompts, "max_tokens": num_tokens, "temperature": 0.0}
    body |= {"ignore_eos": True, "return_token_ids": True}
    headers = {"Authorization": f"Bearer {target.key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{target.url}/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        choices = json.load(answer)["choices"]
    return [choice["token_ids"] for choice in sorted(choices, key=lambda each: each["index"])]


def _logits(model: torch.nn.Module, tokens: list[int]) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """Float32 logits [len(tokens), vocab]: with the text given, one pass judges every token of an answer."""
    with torch.inference_mode():
        logits: np.ndarray[tuple[int, int], np.dtype[np.float32]] = model(torch.tensor([tokens])).logits[0].numpy()
    return logits
