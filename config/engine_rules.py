"""What each engine can do: options that it lacks are refused in one line, with those that it has. No torch."""

from .errors import UserError
from .lora import OF_FEED_FORWARD, LoraConfig
from .model import ModelShape
from .run import RunConfig

_ONLY_MEGATRON = ("pipeline", "virtual_pipeline", "expert_tensor")


def engine_rule(run: RunConfig, model: ModelShape) -> None:
    """Raises UserError naming the field that the run's engine knows nothing of."""
    folder = run.parallelism.offload_folder
    if folder is not None and run.parallelism.offload != "nvme":
        remedy = "take it out, or set parallelism.offload=nvme"
        raise UserError("parallelism.offload_folder", f"{folder} with offload {run.parallelism.offload}", remedy)
    if run.train.lora is not None:
        _lora(run, run.train.lora, model)
    if run.parallelism.engine == "megatron":
        _megatron(run)
    else:
        _deepspeed(run, model)


def _lora(run: RunConfig, lora: LoraConfig, model: ModelShape) -> None:
    """Adapters stand beside whole matrices that came from elsewhere."""
    if run.parallelism.engine != "deepspeed":
        remedy = "use parallelism.engine=deepspeed, or take train.lora out"
        raise UserError("train.lora", f"rank {lora.rank} with engine {run.parallelism.engine}", remedy)
    if run.checkpoint.init_from is None:
        remedy = "give a Hugging Face folder as checkpoint.init_from"
        raise UserError("train.lora", "without checkpoint.init_from: there are no weights to adapt", remedy)
    for axis in ("tensor", "expert"):
        size = getattr(run.parallelism, axis)
        if size > 1:
            raise UserError(f"parallelism.{axis}", f"{size} with train.lora", "use 1 and zero 3")
    if run.train.router.bias_update_rate is not None:
        problem = f"{run.train.router.bias_update_rate} with train.lora, which leaves all but the adapters as it was"
        raise UserError("train.router.bias_update_rate", problem, "take it out")
    outside = [target for target in lora.targets if target in OF_FEED_FORWARD]
    if model.experts is not None and outside:
        problem = f"{outside} of a mixture of experts, whose experts are trained as one"
        raise UserError("train.lora.targets", problem, "use those of attention")


def _megatron(run: RunConfig) -> None:
    parallel = run.parallelism
    if parallel.zero > 1:
        remedy = "use zero 0 or 1, or parallelism.engine=deepspeed"
        problem = f"{parallel.zero}, but megatron shares only the optimizer's state"
        raise UserError("parallelism.zero", problem, remedy)
    if parallel.offload != "none":
        remedy = "take it out, or use parallelism.engine=deepspeed"
        raise UserError("parallelism.offload", f"{parallel.offload}, but megatron keeps its state on the GPU", remedy)
    if run.train.optimizer.name == "muon" and parallel.zero:
        problem = f"{parallel.zero} with optimizer muon, which needs whole matrices on each data parallel rank"
        raise UserError("parallelism.zero", problem, "use zero 0, or train.optimizer.name=adamw")


def _deepspeed(run: RunConfig, model: ModelShape) -> None:
    parallel = run.parallelism
    if run.train.optimizer.name == "muon":
        remedy = "use parallelism.engine=megatron with zero 0, or adamw"
        raise UserError("train.optimizer.name", "muon with engine deepspeed", remedy)
    for axis in _ONLY_MEGATRON:
        if getattr(parallel, axis) > 1:
            raise UserError(
                f"parallelism.{axis}",
                f"{getattr(parallel, axis)} with engine deepspeed, which shares by ZeRO, tensor and expert ranks",
                "use 1 and zero 3, or parallelism.engine=megatron",
            )
    if parallel.transformer_engine == "always":
        remedy = "use auto or never, or parallelism.engine=megatron"
        raise UserError("parallelism.transformer_engine", "always with engine deepspeed", remedy)
    if parallel.zero == 0:
        raise UserError("parallelism.zero", "0 with engine deepspeed", "use 1, 2 or 3")
    if run.train.recompute == "attention":
        remedy = "use full or none, or parallelism.engine=megatron"
        raise UserError("train.recompute", "attention with engine deepspeed, which recomputes whole layers", remedy)
    if parallel.offload == "nvme":
        if parallel.zero != 3:
            raise UserError("parallelism.offload", f"nvme with zero {parallel.zero}", "use zero 3, or offload cpu")
        if parallel.offload_folder is None:
            raise UserError("parallelism.offload_folder", "is missing", "give a folder on each node's own disk")
    if parallel.expert > 1 and model.experts is not None and model.experts.biased:
        remedy = "use expert 1 and zero 3, or parallelism.engine=megatron"
        problem = f"{parallel.expert} with engine deepspeed, whose AutoEP knows no {model.family}"
        raise UserError("parallelism.expert", problem, remedy)
    if parallel.expert > 1 and parallel.context > 1:
        remedy = "use one of them, or parallelism.engine=megatron"
        raise UserError(
            "parallelism.context", f"{parallel.context} beside expert {parallel.expert}, with engine deepspeed", remedy
        )
    _auto_tensor(run, model)
    _ulysses(parallel.context, model)


def _auto_tensor(run: RunConfig, model: ModelShape) -> None:
    """Tensor ranks share the matrices of dense layers, each with whole key-value heads."""
    tensor = run.parallelism.tensor
    if tensor == 1:
        return
    if model.experts is not None:
        remedy = "use tensor 1 and zero 3, or parallelism.engine=megatron"
        raise UserError("parallelism.tensor", f"{tensor} with engine deepspeed, for a mixture of experts", remedy)
    if run.parallelism.context > 1:
        remedy = "use one of them, or parallelism.engine=megatron"
        raise UserError(
            "parallelism.context", f"{run.parallelism.context} beside tensor {tensor}, with engine deepspeed", remedy
        )
    if run.parallelism.sequence:
        remedy = "set it to false, or use parallelism.engine=megatron"
        raise UserError(
            "parallelism.sequence", "true with engine deepspeed, whose tensor ranks all have all activations", remedy
        )
    if model.num_kv_heads % tensor:
        good = [n for n in range(1, model.num_kv_heads + 1) if model.num_kv_heads % n == 0]
        raise UserError(
            "parallelism.tensor",
            f"{tensor} with engine deepspeed does not divide the model's {model.num_kv_heads} key-value heads",
            f"use one of {good}, or parallelism.engine=megatron",
        )


def _ulysses(context: int, model: ModelShape) -> None:
    """Every context rank gets whole heads."""
    heads, kv = model.num_heads, model.num_kv_heads
    good = [n for n in range(1, heads + 1) if heads % n == 0 and (kv % n == 0 or n % kv == 0)]
    if context not in good:
        raise UserError(
            "parallelism.context",
            f"{context} with engine deepspeed does not share {heads} heads and {kv} key-value heads out",
            f"use one of {good}, or parallelism.engine=megatron",
        )
