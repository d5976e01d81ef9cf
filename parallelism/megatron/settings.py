"""What megatron-core is told of a run's gradients and its optimizer. Imported only after compat.prepare()."""

from typing import Any

import torch
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.optimizer import OptimizerConfig
from megatron.core.transformer import TransformerConfig

from ...config.run import RunConfig


def overlap(config: TransformerConfig, chunks: list[Any]) -> None:
    """Tell megatron-core's schedules when chunks may reduce and gather, as its own training does."""
    config.no_sync_func = _one_or_all([chunk.no_sync for chunk in chunks])
    if len(chunks) > 1:
        config.grad_sync_func = [chunk.start_grad_sync for chunk in chunks]
        if chunks[0].use_forward_hook:
            config.param_sync_func = [chunk.start_param_sync for chunk in chunks]


def _one_or_all(functions: list[Any]) -> Any:
    return functions if len(functions) > 1 else functions[0]


def ddp_config(run: RunConfig) -> DistributedDataParallelConfig:
    """How data parallel ranks share gradients."""
    return DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        overlap_grad_reduce=run.parallelism.overlap,
        overlap_param_gather=run.parallelism.overlap and run.parallelism.zero == 1,
        align_param_gather=run.parallelism.overlap and run.parallelism.virtual_pipeline > 1,
        use_distributed_optimizer=run.parallelism.zero == 1,
        check_for_nan_in_grad=False,
    )


def optimizer_config(run: RunConfig) -> OptimizerConfig:
    """AdamW by the run file."""
    adam = run.train.optimizer
    return OptimizerConfig(
        optimizer="adam",
        lr=adam.lr,
        weight_decay=adam.weight_decay,
        adam_beta1=adam.betas[0],
        adam_beta2=adam.betas[1],
        adam_eps=adam.eps,
        clip_grad=adam.clip_norm,
        bf16=run.train.precision == "bf16",
        params_dtype=torch.bfloat16 if run.train.precision == "bf16" else torch.float32,
        use_distributed_optimizer=run.parallelism.zero == 1,
    )
