"""Metrics of a run: the one rank that has the loss records each step; everyone else reads the files."""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config.run import RunConfig
from ..config.rundir import RunDir
from .console import StepConsole
from .wandb_log import WandbLog, stable_wandb_id

# A number that JSON has no word for is written as null and read back as NaN.
_MAY_BE_NAN = ("loss", "grad_norm", "lr")


@dataclass(frozen=True, kw_only=True)
class Routing:
    """How evenly the tokens of a step went to the experts."""

    load: npt.NDArray[np.float64]
    """[layers with experts, num_experts]: tokens over the even share; 1 is balance."""
    aux_loss: float | None
    """Load balancing loss without its coefficient, mean over layers; 1 is balance. None: its coefficient is 0."""
    z_loss: float
    """Squared logsumexp of the routers' logits, mean over layers and positions."""

    def scalars(self) -> dict[str, float]:
        """What is recorded every step: the losses, the fullest expert of all layers, how many got no token."""
        most, idle = float(self.load.max()), int((self.load == 0).sum())
        aux = {} if self.aux_loss is None else {"aux_loss": self.aux_loss}
        return aux | {"z_loss": self.z_loss, "expert_load_max": most, "idle_experts": idle}

    def by_name(self) -> dict[str, float]:
        """The load under flat names: the fullest expert of each layer, and each expert's mean over the layers."""
        layers = {f"expert_load_max/layer_{row:03d}": float(value) for row, value in enumerate(self.load.max(1))}
        return layers | {f"expert_load/expert_{j:03d}": float(value) for j, value in enumerate(self.load.mean(0))}


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What one optimizer step gave, over all ranks."""

    step: int
    """Number of the step, from 1."""
    loss: float
    """Mean loss per token, in nats."""
    grad_norm: float
    """Global gradient norm before clipping."""
    lr: float
    """Learning rate of this step."""
    tokens: int
    """Tokens of this step, over all ranks."""
    seconds: float
    """Wall-clock time of this step."""
    routing: "Routing | None" = None
    """What the routers did; None for a dense model."""

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


class Recorder:
    """Writes each step of one attempt to the metrics file, to W&B (unless disabled) and to stderr.

    The metrics file is the record: a line per step, handed to the kernel before `step` returns, so SIGKILL loses
    nothing. W&B and the console are views of it; W&B failing or hanging never stops or delays training.
    """

    def __init__(self, run: RunConfig, run_dir: RunDir, attempt: int, *, console: bool = True) -> None:
        """Open this attempt's metrics file. Raises OSError if the run directory cannot be written."""
        path = run_dir.metrics(attempt)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._load_every = run.tracking.expert_load_every
        self._console = StepConsole(run.train.steps) if console else None
        self._wandb: WandbLog | None = None
        if run.tracking.wandb.mode != "disabled":
            self._wandb = WandbLog(run, run_dir, stable_wandb_id(run_dir))

    def step(self, record: StepRecord) -> None:
        """Record one step. Raises OSError if the metrics file cannot grow."""
        fields = {name: getattr(record, name) for name in ("step", "loss", "grad_norm", "lr", "tokens", "seconds")}
        fields |= {"tokens_per_s": record.tokens_per_s, "time": time.time()}
        routing = record.routing
        if routing:
            fields |= routing.scalars()
        line: dict[str, Any] = {key: value if _speakable(value) else None for key, value in fields.items()}
        if routing and record.step % self._load_every == 0:
            line["expert_load"] = [[round(value, 4) for value in layer] for layer in routing.load.tolist()]
            fields |= routing.by_name()
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        if self._wandb:
            self._wandb.log(record.step, {key: value for key, value in fields.items() if key not in ("step", "time")})
        if self._console:
            self._console.show(record.step, record.loss, record.tokens, record.seconds)

    def close(self, ok: bool) -> None:
        """End the attempt; `ok` tells W&B whether it finished well."""
        if self._console:
            self._console.close()
        self._file.close()
        if self._wandb:
            self._wandb.close(ok)


def read_metrics(run_dir: RunDir) -> list[dict[str, Any]]:
    """The steps of a run in order, each once: of a step that several attempts ran, the latest attempt's line.

    Keys: step, loss, grad_norm, lr, tokens (of this step), seconds, tokens_per_s, time (since the epoch), attempt; for
    models with experts aux_loss, z_loss, expert_load_max, idle_experts, and now and then expert_load.
    A torn last line (a killed writer) is left out; a run without metrics gives an empty list.
    """
    steps: dict[int, dict[str, Any]] = {}
    for path in sorted(run_dir.telemetry.glob("metrics-*.jsonl")):
        attempt = int(path.stem.removeprefix("metrics-"))
        for record in _read_lines(path):
            steps[record["step"]] = {**record, "attempt": attempt}
    return [steps[step] for step in sorted(steps)]


def _speakable(value: float) -> bool:
    return math.isfinite(value)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            record["step"] = int(record["step"])
        except (ValueError, KeyError, TypeError):
            continue
        for key in _MAY_BE_NAN:
            if record.get(key) is None:
                record[key] = math.nan
        records.append(record)
    return records
