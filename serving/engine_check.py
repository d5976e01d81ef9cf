"""Does transformers compute on an export what the engine computes on the checkpoint? Two processes: both load torch."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from ..config.errors import FoundBad

_EXACT, _ROUNDED = 1e-5, 2**-7
"""Largest difference over the largest logit; the second for weights that are rounded to 16 bits, as exports may be."""


def check_by_engine(run: Path, checkpoint: Path, folder: Path) -> float:
    """Largest difference of logits on the run's first samples, over the largest logit, in float32.

    Raises FoundBad if it is larger than rounding explains: what the engine trained stands under wrong names then.
    """
    with tempfile.TemporaryDirectory() as scratch:
        logits = str(Path(scratch) / "logits.npz")
        _python("trainwright.parallelism.probe", str(run), str(checkpoint), logits)
        answer = _python("trainwright.serving.logits_check", str(folder), logits, "--tolerance", "1")
    difference = float(json.loads(answer.splitlines()[-1])["max_rel"])
    exact = json.loads((folder / "config.json").read_text(encoding="utf-8"))["dtype"] == "float32"
    tolerance = _EXACT if exact else _ROUNDED
    if not difference <= tolerance:
        problem = f"transformers' logits differ from the engine's by {difference:.1e}, and {tolerance:.0e} is right"
        raise FoundBad(
            str(folder), problem, f"do not serve it; `trainwright verify-layout {run}/run.yaml` names the tensors"
        )
    return difference


def _python(module: str, *arguments: str) -> str:
    """Run a module in a process of its own; its stdout. Its exit code 3 is a finding, and no failure."""
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise RuntimeError(f"{module} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout
