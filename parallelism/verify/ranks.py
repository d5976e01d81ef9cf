"""Ranks of one layout as forks of a process that has imported everything: what each computes, one folder per layout.

The parent must not have computed with torch on more than one thread: OpenMP's threads do not survive a fork.
"""

import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

from ...config.errors import FoundBad
from ...config.layout_rules import layout_of
from ...config.model import ModelShape
from ...config.run import RunConfig
from ...storage.checkpoints.checkpoint_writer import OwnedRectangle
from ..batches import BatchReader
from ..engine import GRADIENT
from ..engines import build_engine
from ..ranks import join
from ..resume import first_weights
from .drawn import STEPS_DONE, DrawnData, DrawnState

STEPS = 2
LEARNING_RATE = 1e-3
INITIAL, LOADED = "initial", "loaded"
"""Folders of what a rank holds after its first weights, and after the drawn state; steps are in `1`, `2`, ..."""


def compute(run: RunConfig, model: ModelShape, rank: int, folder: Path) -> None:
    """One rank's part: first weights, the drawn state, and STEPS steps from there, written under `folder`."""
    layout = layout_of(run, model)
    join(layout.world_size)
    try:
        engine = build_engine(run, model, layout, rank)
        engine.load(first_weights(run, model), 0)
        _write(folder / INITIAL, rank, iter(engine.owned_state()))
        engine.load(DrawnState(model), STEPS_DONE)
        _write(folder / LOADED, rank, iter(engine.owned_state()))
        data = DrawnData(run.data, model.vocab_size, run.train.micro_batch_size)
        reader = BatchReader(run, data, layout.coordinates(rank).data, layout.data)  # type: ignore[arg-type]
        for number in range(STEPS):
            place = folder / str(number + 1)
            samples = reader.read(number * run.train.global_batch_size)
            result = engine.train_step(samples, LEARNING_RATE, watch=partial(_write, place / GRADIENT, rank))
            _write(place / "state", rank, iter(engine.owned_state()))
            load = None if result.routing is None else result.routing.load.tolist()
            record = {"loss": result.loss, "grad_norm": result.grad_norm, "tokens": result.tokens, "load": load}
            (place / f"result-{rank}.json").write_text(json.dumps(record))
        reader.close()
    finally:
        dist.destroy_process_group()


def _write(folder: Path, rank: int, owned: Iterator[OwnedRectangle]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    held = list(owned)
    index = [{"slot": each.slot, "name": each.name, **asdict(each.rectangle)} for each in held]
    arrays: dict[str, Any] = {str(number): each.values for number, each in enumerate(held)}
    np.savez(folder / f"rank-{rank}.npz", **arrays)
    (folder / f"rank-{rank}.json").write_text(json.dumps(index))


def run_forked(world_size: int, work: Callable[[int], None], timeout_s: float) -> None:
    """Call work(rank) in a fork for each rank. Raises FoundBad with the end of what the first failed rank printed."""
    port = _free_port()
    processes = [_fork(rank, world_size, port, work) for rank in range(world_size)]
    failed = _wait(processes, timeout_s)
    if failed is not None:
        raise FoundBad(f"rank {failed}", "failed while computing; its traceback is above", "see docs/verify-layout.md")


def _fork(rank: int, world_size: int, port: int, work: Callable[[int], None]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank), **address)
        work(rank)
        code = 0
    except BaseException:  # nothing of the parent may run on in a fork
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(processes: Sequence[int], timeout_s: float) -> int | None:
    """The first rank that failed, after ending the others; None if all are done well."""
    left, deadline, failed = dict(enumerate(processes)), time.monotonic() + timeout_s, None
    while left:
        for rank, process in list(left.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                del left[rank]
                if status and failed is None:
                    failed = rank
        if left and (failed is not None or time.monotonic() > deadline):
            failed = min(left) if failed is None else failed
            for process in left.values():
                os.kill(process, 9)
                os.waitpid(process, 0)
            left.clear()
        time.sleep(0.01)
    return failed


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
