"""The process group of a run: joining it, agreeing over it; memory that its GPU copies from without waiting."""

import os
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from ..config.errors import UserError


@dataclass(frozen=True)
class Rank:
    """This process among the run's ranks."""

    rank: int
    world_size: int
    local_rank: int


PATIENCE = timedelta(days=1)
"""What operations of a process group may take: longer than any hang, which the watchdog ends and names."""
_JOIN_PATIENCE = timedelta(minutes=10)


def join(expected_world_size: int) -> Rank:
    """Join the default group by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT: NCCL on CUDA, else gloo."""
    me = Rank(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", "0")))
    if me.world_size != expected_world_size:
        raise UserError(
            "cluster", f"{me.world_size} ranks were started, not {expected_world_size}", "make nodes and ranks agree"
        )
    if torch.cuda.is_available():
        # With one GPU visible per task (Slurm's --gpus-per-task), every local rank's device is 0.
        torch.cuda.set_device(me.local_rank % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    else:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        backend = "gloo"
    if me.world_size == 1:  # a rank alone needs no address to meet at
        alone = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=alone, rank=0, world_size=1)
    else:
        dist.init_process_group(backend, timeout=_JOIN_PATIENCE)
        dist.distributed_c10d._set_pg_timeout(PATIENCE)
    return me


def all_agree(mine: bool) -> bool:
    """True if `mine` is true on every rank."""
    flag = torch.tensor([int(mine)], dtype=torch.int32)  # on the CPU: gloo carries it on every backend
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag.item())


def from_rank_zero(value: int) -> int:
    """Rank 0's value, on every rank."""
    box = torch.tensor([value], dtype=torch.int64)
    dist.broadcast(box, src=0)
    return int(box.item())


def text_from_rank_zero(text: str) -> str:
    """Rank 0's text, on every rank."""
    data = text.encode()
    box = torch.zeros(from_rank_zero(len(data)), dtype=torch.uint8)
    if dist.get_rank() == 0 and data:
        box.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    dist.broadcast(box, src=0)
    return bytes(box.numpy()).decode()


def texts_at_rank_zero(text: str) -> list[str]:
    """Every rank's text by rank, on rank 0; empty elsewhere."""
    data = text.encode()
    longest = torch.tensor([len(data)], dtype=torch.int64)
    dist.all_reduce(longest, op=dist.ReduceOp.MAX)
    box = torch.zeros(int(longest.item()), dtype=torch.uint8)
    box[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    boxes = [torch.empty_like(box) for _ in range(dist.get_world_size())] if dist.get_rank() == 0 else None
    dist.gather(box, boxes, dst=0)
    return [bytes(each.numpy()).rstrip(b"\0").decode() for each in boxes or ()]


def host_array(shape: tuple[int, int]) -> NDArray[np.int64]:
    """An int64 array, uninitialised; pinned where there is a GPU to copy it to."""
    array: NDArray[np.int64] = torch.empty(shape, dtype=torch.int64, pin_memory=torch.cuda.is_available()).numpy()
    return array
