"""transformers' model of a shape, empty, and what DeepSpeed is told of a run."""

from typing import Any

import torch
import torch.distributed as dist

from ...config.layout import Layout
from ...config.model import ModelShape
from ...config.model_file import model_config
from ...config.run import RunConfig
from .attention import NAME, Attention


def build_model(run: RunConfig, model: ModelShape, attention: Attention, settings: dict[str, Any]) -> Any:
    """The causal language model in the run's precision, not initialised; under ZeRO 3 in shares from the start."""
    import deepspeed
    from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    AttentionInterface.register(NAME, attention)
    fields = model_config(model)
    config: Any = AutoConfig.for_model(fields.pop("model_type"), **fields)
    config.use_cache = False
    dtype = torch.bfloat16 if run.train.precision == "bf16" else torch.float32
    # Not with `dtype`: where float16 is not supported, DeepSpeed 0.19 takes bfloat16 for any that is given.
    share = deepspeed.zero.Init(
        config_dict_or_path=settings, enabled=run.parallelism.zero == 3 and run.parallelism.tensor == 1
    )
    with no_init_weights(), share:
        built: Any = AutoModelForCausalLM.from_config(config, attn_implementation=NAME, dtype=dtype)
    built.tie_weights()  # a part of the initialisation that was left out
    make_rotary_anew(built)
    if run.train.recompute == "full":
        built.gradient_checkpointing_enable({"use_reentrant": False})
    built.train()
    return built


def make_rotary_anew(built: Any) -> None:
    """Whatever is made under zero.Init is cast to its type: rotary frequencies in bfloat16 are other positions."""
    built.model.rotary_emb = type(built.model.rotary_emb)(config=built.config)


def sum_head_norms(built: Any, tensors: dist.ProcessGroup) -> None:
    """Add up over tensor ranks the gradients of norms over single heads: each rank has its own heads only.

    DeepSpeed's AutoTP (0.19.8) leaves them partial, and the copies of such a norm drift apart.
    """

    def summed(gradient: torch.Tensor) -> torch.Tensor:
        whole = gradient.contiguous()
        dist.all_reduce(whole, group=tensors)
        return whole

    for name, parameter in built.named_parameters():
        if name.endswith(("self_attn.q_norm.weight", "self_attn.k_norm.weight")):
            parameter.register_hook(summed)


def optimizer_of(run: RunConfig, built: Any) -> torch.optim.Optimizer:
    """AdamW; matrices decay, vectors do not."""
    adam = run.train.optimizer
    matrices = [p for p in built.parameters() if len(getattr(p, "ds_shape", p.shape)) > 1]
    vectors = [p for p in built.parameters() if len(getattr(p, "ds_shape", p.shape)) == 1]
    groups = [
        {"params": matrices, "weight_decay": adam.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=adam.lr, betas=adam.betas, eps=adam.eps)


def settings_of(run: RunConfig, layout: Layout) -> dict[str, Any]:
    """DeepSpeed's configuration. Context ranks are data parallel ranks to it: each has positions of its own."""
    parallel, train = run.parallelism, run.train
    zero: dict[str, Any] = {
        "stage": parallel.zero,
        # Buckets of 500 million numbers, the default, would be allocated whole.
        "reduce_bucket_size": 50_000_000,
        "allgather_bucket_size": 50_000_000,
    }
    if parallel.offload != "none":
        place: dict[str, Any] = {"device": parallel.offload, "pin_memory": torch.cuda.is_available()}
        if parallel.offload == "nvme":
            place["nvme_path"] = parallel.offload_folder
        zero["offload_optimizer"] = place
    tensor = {"tensor_parallel": _tensor_settings(parallel.tensor)} if parallel.tensor > 1 else {}
    return {
        **tensor,
        "train_micro_batch_size_per_gpu": train.micro_batch_size,
        "gradient_accumulation_steps": train.global_batch_size // (train.micro_batch_size * layout.data),
        "gradient_clipping": train.optimizer.clip_norm,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": train.precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "steps_per_print": 2**62,
    }


def _tensor_settings(size: int) -> dict[str, Any]:
    """AutoTP told which matrices tensor ranks share: those of attention and of the feed-forward, as in Megatron."""
    rows = [r".*\.self_attn\.[qkv]_proj\.(weight|bias)$", r".*\.mlp\.(gate|up)_proj\.weight$"]
    columns = [r".*\.self_attn\.o_proj\.weight$", r".*\.mlp\.down_proj\.weight$"]
    specs = [
        {"patterns": rows, "partition_type": "column"},
        {"patterns": columns, "partition_type": "row"},
    ]
    return {"autotp_size": size, "partition_config": {"use_default_specs": False, "layer_specs": specs}}
