"""A run directory with one committed checkpoint, written by the product's own writer from random weights."""

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from trainwright.config.model_reader import read_model
from trainwright.config.rundir import RunDir, create_run_dir
from trainwright.storage.checkpoints.checkpoint_writer import (
    OwnedRectangle,
    files_written,
    prepare_folder,
    write_rank_files,
)
from trainwright.storage.checkpoints.manifest import FORMAT_VERSION, Manifest, write_manifest
from trainwright.storage.checkpoints.rectangles import Rectangle, matrix_shape
from trainwright.storage.checkpoints.tensor_names import tensor_shapes
from trainwright.storage.checkpoints.tensor_source import WEIGHT, Float32Array

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "eos_token_id": 0,
}
RUN_YAML = """\
schema_version: 1
name: small
model: snapshot/model/config.json
data: {train: [{store: store.zarr}], sequence_length: 32}
train: {steps: 5, global_batch_size: 4}
"""
TEXT = "def add(first, second):\n    return first + second\n\nclass Box:\n    pass\n" * 20


def make_run(
    runs: Path, config: dict[str, object] | None = None, precision: str = "fp32", num_ranks: int = 1
) -> RunDir:
    """A run with a checkpoint of step 5; each of `num_ranks` writes a band of rows of every tensor."""
    run = create_run_dir(runs, "small")
    run.run_yaml.write_text(RUN_YAML)
    run.model_config.parent.mkdir(parents=True)
    run.model_config.write_text(json.dumps(config or LLAMA))
    write_tokenizer(run.tokenizer)
    write_checkpoint(run, 5, precision, num_ranks)
    return run


def weights_of(run: RunDir) -> dict[str, Float32Array]:
    """The weights that `write_checkpoint` saves, by Hugging Face name."""
    generator = np.random.default_rng(7)
    shapes = tensor_shapes(read_model(run.model_config))
    return {name: generator.standard_normal(shape, np.float32) * np.float32(0.05) for name, shape in shapes.items()}


def owned_by(run: RunDir, rank: int, num_ranks: int) -> list[OwnedRectangle]:
    """What one of `num_ranks` ranks writes: its band of rows of every tensor."""
    owned = [_band(name, values, rank, num_ranks) for name, values in weights_of(run).items()]
    return [item for item in owned if item.rectangle.size]


def write_checkpoint(run: RunDir, step: int, precision: str = "fp32", num_ranks: int = 1) -> Path:
    """Save and commit a checkpoint of random weights; returns its folder."""
    weights, folder = weights_of(run), run.checkpoint(step)
    prepare_folder(folder)
    for rank in range(num_ranks):
        write_rank_files(folder, rank, owned_by(run, rank, num_ranks))
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        step=step,
        tokens=1000 * step,
        position=4 * step,
        order={"version": 1, "seed": 1, "window": None},
        scalars={},
        layout={"tensor": 1, "pipeline": 1, "data": num_ranks},
        engine="megatron",
        precision=precision,
        versions={},
        tensors={name: list(values.shape) for name, values in weights.items()},
        slots=[WEIGHT],
        files=files_written(folder, num_ranks),
        tokenizer_fingerprint="",
        snapshot_digest="",
        wandb_id=None,
    )
    write_manifest(folder, manifest)
    return folder


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE tokenizer of 320 tokens in Hugging Face's files."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _band(name: str, values: Float32Array, rank: int, num_ranks: int) -> OwnedRectangle:
    rows, cols = matrix_shape(values.shape)
    first, last = rows * rank // num_ranks, rows * (rank + 1) // num_ranks
    rectangle = Rectangle(row=first, num_rows=last - first, col=0, num_cols=cols)
    return OwnedRectangle(WEIGHT, name, rectangle, np.ascontiguousarray(values.reshape(rows, cols)[first:last]))
