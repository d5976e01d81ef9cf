"""`trainwright convert SOURCE FOLDER`: a checkpoint of Megatron-LM, DeepSpeed or torch as a Hugging Face folder."""

import argparse
from typing import Any

from .output import add_json_option, emit


def add_parser(commands: Any) -> None:
    """Declare the command's options."""
    text = "write a checkpoint of Megatron-LM (torch_dist), DeepSpeed or torch DCP as a Hugging Face folder"
    parser = commands.add_parser("convert", help=text, description=text)
    parser.add_argument("source", metavar="SOURCE", help="folder of the checkpoint")
    parser.add_argument("folder", metavar="FOLDER", help="new folder for the weights")
    parser.add_argument("--model", required=True, metavar="CONFIG", help="the model's Hugging Face config.json")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="type of the weights (float32)"
    )
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Convert; the result on stdout."""
    from dataclasses import asdict
    from pathlib import Path

    from ..config.errors import UserError
    from ..config.versions import require_installed
    from ..serving.convert import convert

    source, config = Path(arguments.source), Path(arguments.model)
    if not source.is_dir():
        raise UserError(f"SOURCE: {source}", "is no folder", "give the folder of one checkpoint")
    if config.is_dir():
        config = config / "config.json"
    if not config.is_file():
        raise UserError(f"--model {config}", "no such file", "give a Hugging Face config.json")
    require_installed("convert", ("torch",), "train")
    converted = convert(source, Path(arguments.folder), config, arguments.dtype)
    text = (
        f"converted {converted.num_tensors} tensors of {converted.source} to {converted.folder}: "
        f"{converted.num_bytes / 1e6:.1f} MB, weights {converted.weights_digest[:12]}\n"
        f"next: checkpoint.init_from={converted.folder} in a run file with model: {config}"
    )
    emit(arguments, {**asdict(converted), "folder": str(converted.folder)}, text)
    return 0
