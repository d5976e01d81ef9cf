"""transformers' model of a shape, empty, and what DeepSpeed is told of a run."""

from typing import Any

import torch
import torch.distributed as dist

from ...config.layout import Layout
from ...config.model import ModelShape
from ...config.model_file import model_config
from ...config.run import RunConfig
from .adapters import add_adapters
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
    share = deepspeed.zero.Init(config_dict_or_path=settings, enabled=run.parallelism.zero == 3 and not _replaced(run))
    with no_init_weights(), share:
        built: Any = AutoModelForCausalLM.from_config(config, attn_implementation=NAME, dtype=dtype)
    built.tie_weights()  # a part of the initialisation that was left out
    make_rotary_anew(built)
    if run.train.lora is not None:
        add_adapters(built, run.train.lora)
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


def groups_of(run: RunConfig, built: Any) -> list[dict[str, Any]]:
    """Parameters by what AdamW does with them: matrices decay, vectors do not."""
    decay = run.train.optimizer.weight_decay
    groups: dict[bool, list[Any]] = {True: [], False: []}
    for parameter in built.parameters():
        if not parameter.requires_grad:  # beside its adapter
            continue
        groups[len(getattr(parameter, "ds_shape", parameter.shape)) > 1].append(parameter)
    return [
        {"params": held, "weight_decay": decay if is_matrix else 0.0, "name": "matrices" if is_matrix else "vectors"}
        for is_matrix, held in groups.items()
        if held
    ]


def optimizer_of(run: RunConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdamW over groups in which DeepSpeed may have put modules of its own; experts get groups of their own."""
    if run.parallelism.expert > 1:
        from deepspeed.moe.utils import split_params_into_different_moe_groups_for_optimizer

        groups = split_params_into_different_moe_groups_for_optimizer(groups)
    adam = run.train.optimizer
    return torch.optim.AdamW(groups, lr=adam.lr, betas=adam.betas, eps=adam.eps)


def settings_of(run: RunConfig, model: ModelShape, layout: Layout) -> dict[str, Any]:
    """DeepSpeed's configuration. Context ranks are data parallel ranks to it: each has positions of its own."""
    parallel, train = run.parallelism, run.train
    zero: dict[str, Any] = {
        "stage": parallel.zero,
        "overlap_comm": parallel.overlap or parallel.zero == 3,  # DeepSpeed's own choice for 3
        # Buckets of 500 million numbers, the default, would be allocated whole.
        "reduce_bucket_size": 50_000_000,
        "allgather_bucket_size": 50_000_000,
    }
    if parallel.offload != "none":
        place: dict[str, Any] = {"device": parallel.offload, "pin_memory": torch.cuda.is_available()}
        if parallel.offload == "nvme":
            place["nvme_path"] = parallel.offload_folder
        zero["offload_optimizer"] = place
    replaced: dict[str, Any] = {}
    if parallel.tensor > 1:
        replaced["tensor_parallel"] = _tensor_settings(parallel.tensor)
    if parallel.expert > 1:
        replaced["expert_parallel"] = _expert_settings(parallel.expert, model)
    return {
        **replaced,
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


def _expert_settings(size: int, model: ModelShape) -> dict[str, Any]:
    """AutoEP; its presets differ in names, and in whether the chosen experts' shares are scaled to sum to 1."""
    assert model.experts is not None
    return {
        "enabled": True,
        "autoep_size": size,
        "preset_model": "mixtral" if model.family == "mixtral" else "qwen3_moe",
        "route_norm": model.experts.normalized,
        "use_grouped_mm": torch.cuda.is_available(),
    }


def _replaced(run: RunConfig) -> bool:
    """Whether DeepSpeed puts modules of its own in the place of some, for which it wants them whole."""
    return run.parallelism.tensor > 1 or run.parallelism.expert > 1
