"""Differences between DeepSpeed versions and environments, in one place; each mend names the reason."""

import functools
import logging
import os
import warnings

import torch


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
