"""`trainwright export RUN[@STEP] FOLDER`: a checkpoint as a Hugging Face folder."""

import argparse
from typing import Any

from .output import add_json_option, emit


def add_parser(commands: Any) -> None:
    """Declare the command's options."""
    parser = commands.add_parser("export", help="write a checkpoint as a Hugging Face folder")
    parser.add_argument(
        "checkpoint", metavar="RUN[@STEP]", help="run (its newest checkpoint), run@step, or a checkpoint folder"
    )
    parser.add_argument("folder", metavar="FOLDER", help="new folder for the model")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="type of the weights (the run's own precision)"
    )
    parser.add_argument("--shard-size-gb", type=float, default=5.0, metavar="G", help="largest file in GB (5)")
    text = "compare transformers' logits on the export with the engine's on the checkpoint, on this machine"
    parser.add_argument("--check", action="store_true", help=text)
    alone = "of a run with train.lora, write the adapters alone, in peft's files (without: the model with them merged)"
    parser.add_argument("--adapter", action="store_true", help=alone)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export; progress on stderr, the result on stdout."""
    from dataclasses import asdict
    from pathlib import Path

    from ..config.errors import UserError
    from ..serving.export import ExportOptions, export_checkpoint
    from ..storage.checkpoints.checkpoint import find_checkpoint
    from .progress import BytesProgress

    if not 0.001 <= arguments.shard_size_gb <= 1000:
        raise UserError("--shard-size-gb", f"{arguments.shard_size_gb} is out of range", "give 0.001 to 1000")
    if arguments.adapter and arguments.check:
        problem = "with --adapter: logits are those of a whole model"
        raise UserError("--check", problem, "leave --adapter out, which merges, or --check")
    options = ExportOptions(
        dtype=arguments.dtype,
        shard_bytes=int(arguments.shard_size_gb * 1e9),
        check=arguments.check,
        adapter=arguments.adapter,
    )
    checkpoint = find_checkpoint(arguments.checkpoint)
    with BytesProgress("export") as progress:
        exported = export_checkpoint(checkpoint, Path(arguments.folder), options, progress.update)
    checked = "" if exported.logits_max_rel is None else f", logits as the engine's to {exported.logits_max_rel:.1e}"
    record = {**asdict(exported), "folder": str(exported.folder)}
    text = (
        f"exported {exported.run} step {exported.step} to {exported.folder}: {exported.num_bytes / 1e6:.1f} MB of "
        f"{exported.dtype} in {exported.num_files} file{'s' * (exported.num_files > 1)}, "
        f"weights {exported.weights_digest[:12]}{checked}"
        + ("" if arguments.adapter else f"\nnext: trainwright serve {exported.folder}")
    )
    emit(arguments, record, text)
    return 0
