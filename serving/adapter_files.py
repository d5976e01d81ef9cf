"""Adapters of low rank as peft writes them, to be put beside their base by peft or vLLM. No torch."""

import json
from pathlib import Path

from ..config.errors import UserError
from ..config.run import RunConfig
from ..storage.checkpoints.checkpoint import Checkpoint
from .safetensors_file import DType, ReadRows, Tensor, weights_digest, write_safetensors

_PREFIX = "base_model.model."


def write_adapter(
    folder: Path,
    checkpoint: Checkpoint,
    config: RunConfig,
    dtype: DType,
    read_rows: ReadRows,
) -> tuple[str, int]:
    """Write adapter_model.safetensors and adapter_config.json; the weights' digest and bytes.

    Raises UserError if the run trains all weights.
    """
    lora = config.train.lora
    if lora is None:
        raise UserError(
            "--adapter", f"run {config.name} trains all weights", "leave it out: the whole model is written"
        )
    tensors = [
        Tensor(name=_PREFIX + name, dtype=dtype, shape=shape) for name, shape in sorted(checkpoint.shapes().items())
    ]

    digests = write_safetensors(
        folder / "adapter_model.safetensors",
        tensors,
        lambda name, row, count: read_rows(name.removeprefix(_PREFIX), row, count),
    )
    record = {
        "base_model_name_or_path": config.checkpoint.init_from,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": lora.rank,
        "target_modules": list(lora.targets),
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return weights_digest(tensors, digests), sum(tensor.num_bytes for tensor in tensors)
