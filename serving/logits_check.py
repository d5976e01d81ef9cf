"""Does transformers compute on an export what the engine computed? A process of its own, since it loads torch.

`python -m trainwright.serving.logits_check FOLDER LOGITS.npz`, where the file holds the engine's `tokens` int64 [n, s]
and `logits` float32 [n, s, vocab]. Prints one JSON object; exit code 3 if the difference is above --tolerance.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config.errors import UserError


def compare_logits(folder: Path, tokens: NDArray[np.int64], logits: NDArray[np.float32]) -> dict[str, float | int]:
    """Largest difference between transformers' float32 logits on `folder` and `logits` [n, s, vocab].

    `max_rel` is that difference over the largest absolute logit. Rows are computed one by one to bound memory.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    model.eval()
    largest = scale = 0.0
    agree = 0
    for row, expected in zip(tokens, logits, strict=True):
        with torch.inference_mode():
            got = model(torch.from_numpy(row[None])).logits[0].float().numpy()
        if got.shape != expected.shape:
            remedy = "compare an export with the engine that trained it"
            raise UserError(str(folder), f"gives logits {got.shape}, the engine {expected.shape}", remedy)
        largest = max(largest, float(np.nan_to_num(np.abs(got - expected), nan=np.inf).max()))
        scale = max(scale, float(np.abs(expected).max()))
        agree += int((got.argmax(-1) == expected.argmax(-1)).sum())
    return {
        "max_abs": largest,
        "max_rel": largest / scale if scale else largest,
        "num_tokens": int(tokens.size),
        "same_argmax": agree,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print, and judge by the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="exported Hugging Face folder")
    parser.add_argument("logits", type=Path, help="npz with the engine's tokens and logits")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="largest max_rel that passes (default 1e-5)")
    arguments = parser.parse_args(argv)
    with np.load(arguments.logits, allow_pickle=False) as file:
        result = compare_logits(arguments.folder, file["tokens"], file["logits"])
    passed = result["max_rel"] <= arguments.tolerance
    print(json.dumps({**result, "tolerance": arguments.tolerance, "passed": passed}))
    return 0 if passed else 3


if __name__ == "__main__":
    sys.exit(main())
