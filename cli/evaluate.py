"""`trainwright evaluate MODEL`: perplexity on token stores, and tasks of lm-evaluation-harness."""

import argparse
from typing import TYPE_CHECKING, Any

from .output import add_json_option, emit

if TYPE_CHECKING:
    from ..serving.perplexity import Perplexity

_DTYPES = ("float32", "bfloat16", "float16")


def add_parser(commands: Any) -> None:
    """Declare the command's options."""
    text = "measure an exported model: perplexity on token stores, tasks of lm-evaluation-harness"
    parser = commands.add_parser("evaluate", help=text, description=text)
    parser.add_argument("model", metavar="MODEL", help="exported folder, RUN, RUN@STEP or RUN@best")
    parser.add_argument("--store", action="append", default=[], metavar="STORE", help="token store; may be repeated")
    parser.add_argument("--tokens", type=int, default=1_000_000, metavar="N", help="of each store (1,000,000)")
    parser.add_argument("--length", type=int, metavar="N", help="tokens of a window (the model's limit, at most 2048)")
    parser.add_argument("--tasks", metavar="A,B", help="tasks of lm-evaluation-harness, such as arc_easy,hellaswag")
    parser.add_argument("--include-path", metavar="FOLDER", help="folder with tasks of your own")
    parser.add_argument("--limit", type=int, metavar="N", help="documents of each task (all)")
    parser.add_argument("--fewshot", type=int, metavar="N", help="examples in the prompt (the task's own number)")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="of tasks (8)")
    parser.add_argument("--dtype", choices=_DTYPES, help="what is computed in (the weights')")
    parser.add_argument("--device", help="such as cpu or cuda:1 (a GPU if there is one)")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure; progress on stderr, the result on stdout."""
    from dataclasses import asdict
    from pathlib import Path

    from ..config.errors import UserError
    from ..config.versions import require_installed
    from ..serving.models import find_model
    from ..serving.perplexity import choose_device
    from ..serving.tasks import TaskOptions, run_tasks

    names = [name for name in (arguments.tasks or "").split(",") if name]
    if not arguments.store and not names:
        raise UserError("evaluate", "nothing to measure is given", "give --store or --tasks")
    for option, least in (("tokens", 1), ("length", 2), ("limit", 1), ("fewshot", 0), ("batch_size", 1)):
        value = getattr(arguments, option)
        if value is not None and value < least:
            raise UserError(f"--{option.replace('_', '-')}", f"{value} is too small", f"give {least} or more")
    if arguments.include_path and not Path(arguments.include_path).is_dir():
        raise UserError("--include-path", f"{arguments.include_path} is no folder", "give one with the tasks' YAML")
    require_installed("evaluate", ("torch", "transformers"), "train")
    device = choose_device(arguments.device)
    folder = find_model(arguments.model).folder
    stores = _perplexities(arguments, folder, device)
    options = TaskOptions(
        include_path=Path(arguments.include_path) if arguments.include_path else None,
        limit=arguments.limit,
        num_fewshot=arguments.fewshot,
        batch_size=arguments.batch_size,
        device=device,
        dtype=arguments.dtype,
    )
    tasks = run_tasks(folder, names, options) if names else {}
    record = {"model": str(folder), "stores": [asdict(each) for each in stores], "tasks": tasks}
    emit(arguments, record, "\n".join([*map(_store_line, stores), *_task_lines(tasks)]))
    return 0


def _perplexities(arguments: argparse.Namespace, folder: Any, device: str) -> "list[Perplexity]":
    from ..config.errors import UserError
    from ..serving.perplexity import load_model, perplexity_of
    from ..storage.tokens.locations import locate
    from ..storage.tokens.store import read_info

    places = [locate(store) for store in arguments.store]
    for place in places:
        read_info(place)  # a mistake is said before the model is loaded
    if not places:
        return []
    model = load_model(folder, arguments.dtype, device)
    most = int(getattr(model.config, "max_position_embeddings", 2048))
    length = arguments.length or min(most, 2048)
    if length > most:
        raise UserError("--length", f"{length} is more than the model's {most} positions", f"give {most} or less")
    return [perplexity_of(model, folder, place, length=length, most_tokens=arguments.tokens) for place in places]


def _store_line(found: "Perplexity") -> str:
    return (
        f"{found.store}: perplexity {found.perplexity:.4f} (loss {found.loss:.4f}) over {found.tokens:,} tokens of "
        f"{found.documents:,} documents"
    )


def _task_lines(tasks: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for name, metrics in tasks.items():
        for metric, value in metrics.items():
            key = metric.partition(",")[0]
            if isinstance(value, float) and not key.endswith("_stderr"):
                lines.append(f"{name}: {key} {value:.4f}")
    return lines
