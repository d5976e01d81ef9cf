"""Adapters of low rank in transformers' model, by peft: all other weights are frozen. Imported where there are any."""

from typing import Any

from ...config.errors import UserError
from ...config.lora import LoraConfig


def add_adapters(built: Any, lora: LoraConfig) -> None:
    """Put them beside the model's matrices, in its own type. Raises UserError if peft is not installed."""
    try:
        import peft
    except ModuleNotFoundError as missing:
        if missing.name != "peft":
            raise
        raise UserError("train.lora", "peft is not installed here", "pip install 'trainwright[lora]'") from None
    config = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), lora_dropout=0.0)
    peft.inject_adapter_in_model(config, built)
    dtype = next(parameter.dtype for parameter in built.parameters() if not parameter.requires_grad)
    for parameter in built.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def file_name(name: str) -> str:
    """The name that files have for a parameter: peft puts its own words into those of adapted matrices."""
    return name.replace(".base_layer.", ".").replace(".default.weight", ".weight")
