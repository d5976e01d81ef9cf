"""The engine's own logits of a checkpoint, for comparing an export with them.

`python -m trainwright.parallelism.probe RUN_DIR CHECKPOINT OUT.npz` runs the checkpoint on one rank and writes
`tokens` int64 [n, length] (the first samples of the run's data order) and `logits` float32 [n, length, vocab_size],
computed in float32 or, with `--precision bf16`, as training in bf16 computes them.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch.distributed as dist

from ..config.layout_rules import layout_of
from ..config.loading import load_frozen
from ..config.model_reader import read_model
from ..config.parallelism import ParallelismConfig
from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..storage.checkpoints.checkpoint import open_checkpoint
from ..storage.loading.training_data import TrainingData
from .engines import build_engine, prepare
from .ranks import join
from .resume import state_of


def write_logits(run: RunConfig, run_dir: RunDir, checkpoint: Path, out: Path, shape: tuple[int, int]) -> None:
    """Load the checkpoint into an engine of one rank and write its logits of samples [n, length]; see the module."""
    num_sequences, length = shape
    model = read_model(run_dir.model_config)
    layout = layout_of(run, model)
    tokens = TrainingData.open(run.data).batch(0, num_sequences).tokens[:, :length]
    prepare(run)
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    join(layout.world_size)
    try:
        engine = build_engine(run, model, layout, rank=0)
        engine.load(state_of(open_checkpoint(checkpoint), run, model), 0)
        logits = engine.logits(tokens)
    finally:
        dist.destroy_process_group()
    assert logits is not None  # one rank is the last stage
    with out.open("wb") as file:
        np.savez(file, tokens=tokens, logits=logits)


def _on_one_rank(run: RunConfig, precision: str) -> RunConfig:
    return run.model_copy(
        update={
            "parallelism": ParallelismConfig(engine=run.parallelism.engine),
            "cluster": run.cluster.model_copy(update={"nodes": 1, "ranks_per_node": 1}),
            "train": run.train.model_copy(update={"precision": precision}),
        }
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and write."""
    parser = argparse.ArgumentParser(description="Write the engine's logits of a checkpoint.")
    parser.add_argument("run_dir", type=Path, help="run directory")
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder")
    parser.add_argument("out", type=Path, help="npz file to write")
    parser.add_argument("--sequences", type=int, default=2, help="samples to run (default 2)")
    parser.add_argument("--length", type=int, default=64, help="tokens of each (default 64)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the engine (default fp32)")
    arguments = parser.parse_args(argv)
    run_dir = RunDir(arguments.run_dir.absolute())
    run = _on_one_rank(load_frozen(run_dir.run_yaml), arguments.precision)
    write_logits(run, run_dir, arguments.checkpoint, arguments.out, (arguments.sequences, arguments.length))
    return 0


if __name__ == "__main__":
    sys.exit(main())
