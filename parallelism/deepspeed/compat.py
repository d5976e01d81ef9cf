"""Differences between DeepSpeed versions and environments, in one place; each mend names the reason."""

import contextlib
import functools
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import torch

_OPTIMIZERS = ("zero.stage_1_and_2", "zero.stage3", "bf16_optimizer")


@functools.cache
def prepare() -> None:
    """Make DeepSpeed importable and quiet on this machine (CUDA or CPU)."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it looks for GPUs' tools, and complains
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # On a CPU it would compile an all-reduce of its own at the first start, for a minute, beside gloo's.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


@contextlib.contextmanager
def refusing(refused: Callable[[float], bool]) -> Iterator[None]:
    """Within, DeepSpeed's optimizers leave out an update that `refused` does not want, as one that overflowed.

    It is asked once, with the gradient's norm, and only if that is finite: where these optimizers ask whether the norm
    is valid (DeepSpeed has no hook between the norm and the update).
    """
    modules: list[Any] = [import_module(f"deepspeed.runtime.{name}") for name in _OPTIMIZERS]
    original: Callable[[Any], bool] = modules[0].is_invalid_grad_norm
    asked = False

    def invalid(norm: Any) -> bool:
        nonlocal asked
        if original(norm) or not math.isfinite(float(norm)):
            return True
        if asked:
            return False
        asked = True
        return refused(float(norm))

    for module in modules:
        module.is_invalid_grad_norm = invalid
    try:
        yield
    finally:
        for module in modules:
            module.is_invalid_grad_norm = original
