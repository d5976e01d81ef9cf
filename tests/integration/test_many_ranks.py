"""Thirty-two ranks on one machine: a mixture of experts at TP2 x PP4 x EP4, trained, saved, and resumed by eight."""

import threading
import time
from pathlib import Path

import pytest

from trainwright.config.rundir import RunDir
from trainwright.storage.checkpoints.checkpoint import open_checkpoint
from trainwright.tracking.ledger import read_ledger

from .real_runs import (
    IN_MATRIX,
    ONE_RANK,
    QWEN3_MOE,
    curve,
    finish,
    go_on,
    largest_difference,
    make_project,
    start,
    train,
)

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(3600), IN_MATRIX]
_TP2_EP4 = ["parallelism.tensor=2", "parallelism.sequence=true", "parallelism.expert=4", "parallelism.zero=1"]
MANY = [*_TP2_EP4, "parallelism.pipeline=4", "cluster.ranks_per_node=32", "train.micro_batch_size=1"]
EIGHT = [*ONE_RANK, *_TP2_EP4, "cluster.ranks_per_node=8", "train.micro_batch_size=1"]
STEPS = ["checkpoint.every_steps=5", "train.global_batch_size=16", "restarts.hang_outside_steps_s=3000"]


class Memory(threading.Thread):
    """The largest sum of the ranks' proportional memory (smaps_rollup's Pss: what ranks share is counted once)."""

    def __init__(self, run: RunDir) -> None:
        super().__init__(daemon=True)
        self.run_dir, self.largest_bytes, self.done = run, 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(1.0):
            events = [event for event in read_ledger(self.run_dir) if event.event == "start" and "pid" in event.fields]
            self.largest_bytes = max(self.largest_bytes, sum(_pss(event.fields["pid"]) for event in events))


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


def test_thirty_two_and_eight(tmp_path: Path) -> None:
    project = make_project(tmp_path, QWEN3_MOE)
    began = time.monotonic()
    run = start(project, "many", ["train.steps=5", *STEPS, *MANY])
    memory = Memory(run)
    memory.start()
    finish(run)
    memory.done.set()
    took_s = time.monotonic() - began
    assert open_checkpoint(run.checkpoint(5)).manifest.layout == {
        "tensor": 2,
        "pipeline": 4,
        "data": 4,
        "expert": 4,
    }
    began = time.monotonic()
    go_on(run, ["train.steps=8", *STEPS, *EIGHT])
    print(
        f"32 ranks: start, 5 steps and save in {took_s:.0f} s, memory {memory.largest_bytes / 2**30:.1f} GiB; "
        f"8 ranks: 3 more steps in {time.monotonic() - began:.0f} s"
    )
    one = train(project, "one", ["train.steps=8", *STEPS, *ONE_RANK, "train.micro_batch_size=1"])
    difference = largest_difference(curve(one), curve(run))
    print(f"largest relative difference from one rank over 8 steps: {difference:.1e}")
    assert difference <= 1e-3
