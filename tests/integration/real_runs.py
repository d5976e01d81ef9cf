"""Real training runs for tests: a small store and model, started as `submit` starts them, compared by their metrics."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trainwright.config.loading import load_run
from trainwright.config.model import FAMILIES
from trainwright.config.model_reader import read_model
from trainwright.config.rundir import RunDir
from trainwright.launchers.another_attempt import continue_run
from trainwright.launchers.follow import wait_for_end
from trainwright.launchers.submission import submit_run
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.checkpoints.checkpoint import DATA_FILE, find_checkpoint, open_checkpoint
from trainwright.storage.checkpoints.manifest import FILE_NAME as MANIFEST
from trainwright.storage.checkpoints.rectangles import Rectangle, matrix_shape
from trainwright.storage.checkpoints.slots import moments_of
from trainwright.storage.checkpoints.tensor_names import tensor_shapes
from trainwright.storage.checkpoints.tensor_source import WEIGHT
from trainwright.tracking.ledger import read_ledger
from trainwright.tracking.recorder import read_metrics

WHOLE = os.environ.get("WHOLE_MATRIX") == "1"  # `make test-matrix`: every case, not a representative part
IN_MATRIX = pytest.mark.skipif(not WHOLE, reason="part of `make test-matrix`")
Curve = dict[int, tuple[float, float]]  # step -> (loss, gradient norm)
VOCABULARY = 331  # prime: no tensor parallel size divides it
LENGTH = 32
BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,  # not hidden_size / num_attention_heads
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "eos_token_id": 0,
}
_TP2_SP = ["parallelism.tensor=2", "parallelism.sequence=true"]
LAYOUTS: dict[str, list[str]] = {
    "tp1": [],
    "tp2": ["parallelism.tensor=2", "cluster.ranks_per_node=2"],
    "tp2_sp": [*_TP2_SP, "cluster.ranks_per_node=2"],
    "tp4": ["parallelism.tensor=4", "cluster.ranks_per_node=4"],  # two key-value heads over four ranks
    "pp2": ["parallelism.pipeline=2", "cluster.ranks_per_node=2"],
    "tp2_pp2": ["parallelism.tensor=2", "parallelism.pipeline=2", "cluster.ranks_per_node=4"],
    "dp2": ["parallelism.zero=1", "cluster.ranks_per_node=2"],
    "cp2": ["parallelism.context=2", "cluster.ranks_per_node=2"],
    "tp2_sp_cp2": ["parallelism.context=2", *_TP2_SP, "cluster.ranks_per_node=4"],
    "pp2_uneven": ["parallelism.pipeline=2", "parallelism.stage_layers=[3, 1]", "cluster.ranks_per_node=2"],
    "pp2_vpp2": [
        "parallelism.pipeline=2",
        "parallelism.virtual_pipeline=2",
        "cluster.ranks_per_node=2",
    ],
}
MOE_LAYOUTS: dict[str, list[str]] = {
    "ep2": ["parallelism.expert=2", "cluster.ranks_per_node=2"],
    "ep4": ["parallelism.expert=4", "cluster.ranks_per_node=4"],
    "tp2_sp_ep2": ["parallelism.expert=2", *LAYOUTS["tp2_sp"]],  # the tensor ranks are the expert ranks
    "pp2_ep2": ["parallelism.expert=2", "parallelism.pipeline=2", "cluster.ranks_per_node=4"],
    "pp2_vpp2_ep2": [
        "parallelism.expert=2",
        "parallelism.pipeline=2",
        "parallelism.virtual_pipeline=2",
        "cluster.ranks_per_node=4",
    ],
    "ep2_zero": ["parallelism.expert=2", "parallelism.zero=1", "cluster.ranks_per_node=4"],  # two copies of each expert
    "etp2": ["parallelism.expert_tensor=2", *LAYOUTS["tp2_sp"]],
    "cp2_ep2": ["parallelism.context=2", "parallelism.expert=2", "cluster.ranks_per_node=2"],
    "tp2_sp_cp2_ep4": ["parallelism.context=2", "parallelism.expert=4", *_TP2_SP, "cluster.ranks_per_node=4"],
    "tp2_sp": LAYOUTS["tp2_sp"],  # every tensor rank has all experts whole
}
_ZERO = ["parallelism.engine=deepspeed", "cluster.ranks_per_node=2"]
DEEPSPEED_LAYOUTS: dict[str, list[str]] = {
    "zero1": [*_ZERO, "parallelism.zero=1"],
    "zero2_cp2": [*_ZERO, "parallelism.zero=2", "parallelism.context=2"],
    "zero3": [*_ZERO, "parallelism.zero=3"],
}
ONE_RANK = [
    "parallelism.engine=megatron",
    *(f"parallelism.{axis}=1" for axis in ("tensor", "context", "pipeline", "virtual_pipeline")),
    *(f"parallelism.{axis}=1" for axis in ("expert", "expert_tensor")),
    "parallelism.stage_layers=null",
    "parallelism.sequence=false",
    "parallelism.zero=0",
    "cluster.ranks_per_node=1",
]
RUN_FILE = f"""\
schema_version: 1
name: run
model: config.json
data: {{train: [{{store: store.zarr}}], sequence_length: {LENGTH}, seed: 7, document_mask: true}}
parallelism: {{zero: 0}}
train:
  steps: 3
  global_batch_size: 8
  micro_batch_size: 2
  precision: fp32
  optimizer: {{lr: 3.0e-3}}
  schedule: {{name: constant}}
tracking: {{wandb: {{mode: disabled}}}}
"""


@dataclass(frozen=True)
class Model:
    """A model family, whether its output layer is the embedding, and further fields of its config."""

    family: str
    tied: bool
    more: tuple[tuple[str, object], ...] = ()

    def config(self) -> dict[str, Any]:
        """Its config.json."""
        own = {"model_type": self.family, "architectures": [FAMILIES[self.family]], "tie_word_embeddings": self.tied}
        if self.family in ("qwen2", "qwen2_moe"):
            own["head_dim"] = BASE["hidden_size"] // BASE["num_attention_heads"]  # they know no other
        return {**BASE, **own, "rope_theta": 5000.0, "initializer_range": 0.1, **dict(self.more)}

    def with_wide_heads(self) -> "Model":
        """The same with heads of 32, since vLLM's attention on CPU knows no 8 and 16."""
        hidden = (("hidden_size", 32 * BASE["num_attention_heads"]),) if self.family in ("qwen2", "qwen2_moe") else ()
        return replace(self, more=(*self.more, ("head_dim", 32), *hidden))

    def __str__(self) -> str:
        words = [self.family, "tied" if self.tied else "untied"]
        words += ["stretched"] if "rope_scaling" in dict(self.more) else []
        return "-".join(words + [f"{name}={value}" for name, value in self.more if name == "norm_topk_prob"])


QWEN_EXPERTS = (
    ("num_experts", 4),
    ("num_experts_per_tok", 2),
    ("moe_intermediate_size", 48),
    ("router_aux_loss_coef", 0.02),
)
QWEN3_MOE = Model("qwen3_moe", False, (*QWEN_EXPERTS, ("norm_topk_prob", True)))
QWEN3_MOE_UNSCALED = Model("qwen3_moe", True, (*QWEN_EXPERTS, ("norm_topk_prob", False)))
QWEN2_MOE = Model(
    "qwen2_moe", False, (*QWEN_EXPERTS, ("norm_topk_prob", False), ("shared_expert_intermediate_size", 64))
)
GLM_EXPERTS = (
    ("n_routed_experts", 4),
    ("num_experts_per_tok", 2),
    ("moe_intermediate_size", 48),
    ("first_k_dense_replace", 1),
    ("routed_scaling_factor", 1.5),
    ("attention_bias", True),
)
GLM4_MOE = Model("glm4_moe", False, GLM_EXPERTS)
GLM4_MOE_HEAD_NORMS = Model("glm4_moe", False, (*GLM_EXPERTS, ("use_qk_norm", True), ("attention_bias", False)))
MIXTRAL = Model("mixtral", True, (("num_local_experts", 4), ("num_experts_per_tok", 2), ("router_aux_loss_coef", 0.02)))


def make_project(folder: Path, model: Model, seed: int = 1) -> Path:
    """A run file with its model and a store of documents of very uneven length; returns the run file."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    words = ["".join(draw.choice("abcdefgh") for _ in range(draw.randint(1, 9))) for _ in range(200)]
    text = folder / "text"
    text.mkdir()
    for number in range(1200):
        count = draw.choice((1, 2, 4, 20))
        (text / f"{number:04d}.txt").write_text(" ".join(draw.choice(words) for _ in range(count)))
    build_store([text], folder / "store.zarr", BuildOptions(vocab_size=VOCABULARY), lambda *_: None)
    (folder / "config.json").write_text(json.dumps(model.config()))
    (folder / "run.yaml").write_text(RUN_FILE)
    return folder / "run.yaml"


def train(run_file: Path, name: str, overrides: Sequence[str] = ()) -> RunDir:
    """Submit a run to this machine and wait until it has finished; fails with the reason and log otherwise."""
    run = start(run_file, name, overrides)
    finish(run)
    return run


def start(run_file: Path, name: str, overrides: Sequence[str] = ()) -> RunDir:
    """Submit without waiting."""
    return submit_run(load_run(run_file, [f"name={name}", *overrides]), source=run_file).run_dir


def go_on(run: RunDir, overrides: Sequence[str] = ()) -> None:
    """Another attempt of a run, until it has finished."""
    continue_run(run, overrides)
    finish(run)


def finish(run: RunDir) -> None:
    """Wait for the end of a run's newest attempt."""
    last = wait_for_end(run, lambda _: None)
    log = Path(last.log).read_text()[-3000:] if last.log and Path(last.log).is_file() else ""
    assert last.state == "finished", f"{last.state}: {last.why}\n{log}"


def curve(run: RunDir) -> Curve:
    """Step -> (loss, gradient norm), each step once."""
    return {record["step"]: (record["loss"], record["grad_norm"]) for record in read_metrics(run)}


def largest_difference(a: Curve, b: Curve) -> float:
    """Largest relative difference of losses and gradient norms; the steps must be the same."""
    assert a.keys() == b.keys(), (sorted(a), sorted(b))
    pairs = [(x, y) for step in a for x, y in zip(a[step], b[step], strict=True)]
    return max(abs(x - y) / abs(x) for x, y in pairs)


def digests(checkpoint: Path, run_file: Path) -> dict[str, str]:
    """Slot and name of every tensor to the SHA-256 of its float32 values."""
    source, found = open_checkpoint(checkpoint), {}
    for name, shape in tensor_shapes(read_model(run_file.parent)).items():
        rows, cols = matrix_shape(shape)
        for slot in (WEIGHT, *moments_of("adamw", [name])):
            values = source.read_rectangle(slot, name, Rectangle(row=0, num_rows=rows, col=0, num_cols=cols))
            found[f"{slot} {name}"] = hashlib.sha256(values.tobytes()).hexdigest()
    return found


def kill_ranks(run: RunDir) -> None:
    """SIGKILL every rank of the newest attempt, and wait until the attempt is seen to be over."""
    attempt = run.attempts()[-1]
    for event in read_ledger(run):
        if event.event == "start" and event.attempt == attempt and "rank" in event.fields:
            try:
                os.kill(event.fields["pid"], signal.SIGKILL)
            except ProcessLookupError:
                continue
    wait_for_end(run, lambda _: None)


def wait_for_step(run: RunDir, step: int, timeout_s: float = 180.0) -> None:
    """Until a step has been recorded."""
    deadline = time.monotonic() + timeout_s
    while not curve(run) or max(curve(run)) < step:
        assert time.monotonic() < deadline, f"step {step} was not reached in {timeout_s} s"
        time.sleep(0.01)


def engines_logits(
    run: RunDir, out: Path, *, precision: str = "fp32", shape: tuple[int, int] = (2, LENGTH)
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Tokens [n, length] of the run's data and the engine's logits on its checkpoint, in a process of its own."""
    checkpoint = find_checkpoint(str(run.path)).folder
    probe = ["trainwright.parallelism.probe", str(run.path), str(checkpoint), str(out), "--precision", precision]
    size = ["--sequences", str(shape[0]), "--length", str(shape[1])]
    subprocess.run([sys.executable, "-W", "ignore", "-m", *probe, *size], check=True)
    with np.load(out) as file:
        assert np.abs(file["logits"]).max() > 0.1, "logits near 0 would prove nothing"
        return file["tokens"], file["logits"]


def kill_in_a_save(run: RunDir, step: int, timeout_s: float = 180.0) -> bool:
    """SIGKILL all ranks once they write the checkpoint of `step`; whether it was not committed by then."""
    folder = run.checkpoint(step)
    deadline = time.monotonic() + timeout_s
    while not (folder / f".{DATA_FILE.format(rank=0)}.partial").exists() and not (folder / MANIFEST).exists():
        assert time.monotonic() < deadline, f"step {step} was not saved in {timeout_s} s"
        time.sleep(0.0005)
    kill_ranks(run)
    return not (folder / MANIFEST).exists()


def kill_at_random(run: RunDir, first_step: int, last_step: int) -> None:
    """SIGKILL all ranks at a random moment after a random step."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    wait_for_step(run, draw.randint(first_step, last_step))
    time.sleep(draw.uniform(0, 0.1))
    kill_ranks(run)


def killed_and_resumed(run_file: Path, name: str, overrides: Sequence[str], steps: int) -> Curve:
    """The curve of a run of `steps` steps that was killed at a random moment and gone on with in the same layout."""
    run = start(run_file, name, overrides)
    kill_at_random(run, 1, steps - 4)
    assert curve(run).keys() != set(range(1, steps + 1)), "it was killed too late"
    go_on(run)
    return curve(run)


def run_chain(project: Path, chain: Sequence[str], overrides: Sequence[str] = ()) -> float:
    """A run killed at random and gone on with in the next layout, again and again; its difference from one rank's."""
    each = 6  # steps from kill to kill; more than a save interval, so that every layout saves
    length = [f"train.steps={each * len(chain)}", "checkpoint.every_steps=3", *overrides]
    whole = curve(train(project, "whole", length))
    layouts = LAYOUTS | MOE_LAYOUTS
    run = start(project, "chain", [*length, *layouts[chain[0]]])
    for number, layout in enumerate(chain[1:], start=1):
        kill_at_random(run, number * each - 2, number * each)
        continue_run(run, [*ONE_RANK, *layouts[layout]])
    finish(run)
    difference = largest_difference(whole, curve(run))
    print(f"{' -> '.join(chain)}: largest relative difference {difference:.1e}")
    return difference
