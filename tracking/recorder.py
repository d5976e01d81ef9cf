"""Metrics of a run: the one rank that has the loss records each step; everyone else reads the files."""

import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config.run import RunConfig
from ..config.rundir import RunDir
from .console import StepConsole
from .gpu_sampler import GpuSampler
from .gpu_usage import GpuUsage
from .wandb_log import WandbLog
from .wandb_run import CheckpointReference

# A number that JSON has no word for is written as null and read back as NaN.
_MAY_BE_NAN = ("loss", "grad_norm", "lr")
_NOT_NUMBERS = ("time", "attempt", "expert_load", "gpus", "held_out")  # what W&B is told of in another way


@dataclass(frozen=True, kw_only=True)
class Routing:
    """How evenly the tokens of a step went to the experts."""

    load: npt.NDArray[np.float64]
    """[layers with experts, num_experts]: tokens over the even share; 1 is balance."""
    aux_loss: float | None
    """Load balancing loss without its coefficient, mean over layers; 1 is balance. None: its coefficient is 0."""
    z_loss: float
    """Squared logsumexp of the routers' logits, mean over layers and positions."""
    margin: float | None = None
    """Smallest gap of the step between the scores of the last expert chosen for a token and the first that was not: how
    near the nearest decision was to another. None: not watched (tracking.expert_load_every is not 1)."""

    def scalars(self) -> dict[str, float]:
        """What is recorded every step: the losses, the fullest expert of all layers, how many got no token."""
        most, idle = float(self.load.max()), int((self.load == 0).sum())
        aux = {} if self.aux_loss is None else {"aux_loss": self.aux_loss}
        margin = {} if self.margin is None else {"routing_margin": self.margin}
        return aux | margin | {"z_loss": self.z_loss, "expert_load_max": most, "idle_experts": idle}


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
    skipped: bool = False
    """Its update was not applied."""
    held_out: dict[str, float] | None = None
    """Loss by held-out store after the step, if it was evaluated."""
    routing: Routing | None = None
    """What the routers did; None for a dense model."""

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


class Recorder:
    """Writes each step of one attempt to the metrics file, to W&B (unless disabled) and to stderr.

    The metrics file is the record: a line per step, handed to the kernel before `step` returns, so SIGKILL loses
    nothing. W&B and the console are views of it; W&B failing or hanging never stops or delays training.
    """

    def __init__(
        self,
        run: RunConfig,
        run_dir: RunDir,
        attempt: int,
        *,
        gpus: GpuSampler | None = None,
        console: bool = True,
    ) -> None:
        """Open this attempt's metrics file; `gpus` stays the caller's. OSError if the disk refuses."""
        path = run_dir.metrics(attempt)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._load_every = run.tracking.expert_load_every
        self._gpus, self._gpu_words = gpus, ""
        self._console = StepConsole(run.train.steps) if console else None
        self._wandb: WandbLog | None = None
        if run.tracking.wandb.mode != "disabled":
            self._wandb = WandbLog(run, run_dir, lambda: history(read_metrics(run_dir, before=attempt)))

    def step(self, record: StepRecord) -> None:
        """Record one step. Raises OSError if the metrics file cannot grow."""
        fields = {name: getattr(record, name) for name in ("step", "loss", "grad_norm", "lr", "tokens", "seconds")}
        fields |= {"tokens_per_s": record.tokens_per_s, "time": time.time()}
        if record.skipped:
            fields["skipped"] = 1
        routing = record.routing
        if routing:
            fields |= routing.scalars()
        line: dict[str, Any] = {key: value if _speakable(value) else None for key, value in fields.items()}
        if routing and record.step % self._load_every == 0:
            line["expert_load"] = [[round(value, 4) for value in layer] for layer in routing.load.tolist()]
        if record.held_out:
            line["held_out"] = {name: loss if _speakable(loss) else None for name, loss in record.held_out.items()}
        usage = self._gpus.take() if self._gpus else None
        if usage:
            line["gpus"] = usage.record()
            self._gpu_words = usage.brief()
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        if self._wandb:
            self._wandb.log(record.step, values_of(line) | {"_timestamp": fields["time"]})
        if self._console:
            self._console.show(record.step, record.loss, record.tokens, record.seconds, self._gpu_words)

    def rolled_back(self, step: int) -> None:
        """Steps after `step` are trained again: what was recorded of them does not count. W&B keeps it."""
        self._file.write(json.dumps({"rolled_back_to": step}) + "\n")
        self._file.flush()

    def checkpoint(self, step: int, folder: Path, digest: str) -> None:
        """Tell W&B of a committed checkpoint, by reference; `digest` is the SHA-256 of its manifest."""
        if self._wandb:
            self._wandb.checkpoint(CheckpointReference(step=step, folder=folder, digest=digest))

    def close(self, ok: bool) -> None:
        """End the attempt; `ok` tells W&B whether it finished well."""
        if self._console:
            self._console.close()
        self._file.close()
        if self._wandb:
            self._wandb.close(ok)


def read_metrics(run_dir: RunDir, before: int | None = None) -> list[dict[str, Any]]:
    """The steps of a run in order, each once: of a step that several attempts ran, the latest attempt's line.

    Keys: step, loss, grad_norm, lr, tokens (of this step), seconds, tokens_per_s, time (since the epoch), attempt; for
    an update that was not applied skipped (1); for
    models with experts aux_loss, z_loss, expert_load_max, idle_experts, and now and then expert_load; where rank 0's
    node has GPUs, gpus (see GpuUsage), about once a second. `before`: only attempts before that one.
    A torn last line (a killed writer) is left out; a run without metrics gives an empty list.
    """
    steps: dict[int, dict[str, Any]] = {}
    for attempt, records in read_attempts(run_dir).items():
        if before is None or attempt < before:
            steps |= {record["step"]: {**record, "attempt": attempt} for record in records}
    return [steps[step] for step in sorted(steps)]


def read_attempts(run_dir: RunDir) -> dict[int, list[dict[str, Any]]]:
    """Attempt -> the lines that it recorded, in order of attempts; see `read_metrics` for their keys."""
    paths = sorted(run_dir.telemetry.glob("metrics-*.jsonl"))
    return {int(path.stem.removeprefix("metrics-")): _read_lines(path) for path in paths}


def history(lines: Iterable[Mapping[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """Metrics lines as W&B's history: each step and its values, with the time when it was recorded."""
    return [(line["step"], values_of(line) | {"_timestamp": line["time"]}) for line in lines]


def values_of(line: Mapping[str, Any]) -> dict[str, float]:
    """What W&B is told of a metrics line: numbers under flat names; null (a number that is not finite) is NaN."""
    values = {key: math.nan if value is None else value for key, value in line.items() if key not in _NOT_NUMBERS}
    if "expert_load" in line:
        values |= _load_by_name(np.array(line["expert_load"]))
    for name, loss in line.get("held_out", {}).items():
        values[f"held_out/{name}"] = math.nan if loss is None else loss
    if "gpus" in line:
        values |= GpuUsage.from_record(line["gpus"]).by_name()
    return values


def _load_by_name(load: npt.NDArray[np.float64]) -> dict[str, float]:
    """Load [layers, experts] under flat names: the fullest expert of each layer, each expert's mean over the layers."""
    layers = {f"expert_load_max/layer_{row:03d}": float(value) for row, value in enumerate(load.max(1))}
    return layers | {f"expert_load/expert_{j:03d}": float(value) for j, value in enumerate(load.mean(0))}


def _speakable(value: float) -> bool:
    return math.isfinite(value)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            if "rolled_back_to" in record:
                records = [before for before in records if before["step"] <= int(record["rolled_back_to"])]
                continue
            record["step"] = int(record["step"])
        except (ValueError, KeyError, TypeError):
            continue
        for key in _MAY_BE_NAN:
            if record.get(key) is None:
                record[key] = math.nan
        records.append(record)
    return records
