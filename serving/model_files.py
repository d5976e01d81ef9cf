"""What lies beside the weights of an exported model: config.json, generation_config.json, the tokenizer's files."""

import json
import shutil
from pathlib import Path
from typing import Any

from ..config.errors import UserError
from ..config.model import FAMILIES
from ..config.rundir import RunDir


def write_model_files(run: RunDir, folder: Path, dtype: str) -> None:
    """Write the run's model config with `dtype` set, its generation config, and copies of its tokenizer's files."""
    config = served_config(run.model_config, dtype)
    end = _end_token(config, run.tokenizer)
    if end is not None:
        config["eos_token_id"] = end
    _write_json(folder / "config.json", config)
    ids = {"bos_token_id": config.get("bos_token_id"), "eos_token_id": end, "pad_token_id": config.get("pad_token_id")}
    _write_json(folder / "generation_config.json", {key: value for key, value in ids.items() if value is not None})
    _copy_tokenizer(run.tokenizer, folder)


def served_config(path: Path, dtype: str) -> dict[str, Any]:
    """The config.json at `path` as that of weights of type `dtype`."""
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    config["architectures"] = [FAMILIES[config["model_type"]]]
    # transformers 5 reads dtype, earlier ones and other readers torch_dtype.
    config["dtype"] = config["torch_dtype"] = dtype
    if config["model_type"] == "glm4_moe":
        config["num_nextn_predict_layers"] = 0  # layers that guess further tokens are not trained, so not written
        # vLLM does not work it out.
        config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
    return config


def _end_token(config: dict[str, Any], tokenizer: Path) -> int | list[int] | None:
    """The config's end-of-text id, else that of the tokenizer's `eos_token`."""
    if config.get("eos_token_id") is not None:
        return config["eos_token_id"]  # type: ignore[no-any-return]
    settings, vocabulary = tokenizer / "tokenizer_config.json", tokenizer / "tokenizer.json"
    if not (settings.is_file() and vocabulary.is_file()):
        return None
    token = json.loads(settings.read_text(encoding="utf-8")).get("eos_token")
    text = token.get("content") if isinstance(token, dict) else token
    added = json.loads(vocabulary.read_text(encoding="utf-8")).get("added_tokens", [])
    return next((int(entry["id"]) for entry in added if entry["content"] == text), None)


def _copy_tokenizer(tokenizer: Path, folder: Path) -> None:
    if not (tokenizer / "tokenizer.json").is_file():
        raise UserError(str(tokenizer), "has no tokenizer.json", "the run's snapshot is damaged; export another run")
    for path in sorted(tokenizer.iterdir()):
        if path.is_file() and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)


def _write_json(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
