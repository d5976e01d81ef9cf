"""Tasks of EleutherAI's lm-evaluation-harness on an exported model: its own code, asked in one place."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """How tasks are run."""

    include_path: Path | None = None
    """Folder with tasks of one's own, as YAML."""
    limit: int | None = None
    """Documents of each task; all if None."""
    num_fewshot: int | None = None
    """Examples in the prompt; the task's own number if None."""
    batch_size: int = 8
    device: str = "cpu"
    dtype: str | None = None


def run_tasks(folder: Path, names: list[str], options: TaskOptions) -> dict[str, dict[str, Any]]:
    """Task -> its metrics, as the harness names them (`acc,none`, `acc_stderr,none`, ...).

    Raises UserError naming a task that it does not know, or whose data cannot be had here.
    """
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError:
        remedy = "pip install 'trainwright[evaluate]'"
        raise UserError("--tasks", "lm-evaluation-harness is not installed here", remedy) from None
    include = None if options.include_path is None else str(options.include_path)
    manager = TaskManager(include_path=include)
    for name in names:
        if not manager.match_tasks([name]):
            near = difflib.get_close_matches(name, manager.all_tasks, n=3)
            remedy = f"did you mean {', '.join(near)}?" if near else "see `lm_eval ls tasks`, or give --include-path"
            raise UserError("--tasks", f"{name!r} is no task", remedy)
    model = {"pretrained": str(folder)} | ({"dtype": options.dtype} if options.dtype else {})
    try:
        found: Any = lm_eval.simple_evaluate(
            model="hf",
            model_args=model,
            tasks=names,
            task_manager=manager,
            limit=options.limit,
            num_fewshot=options.num_fewshot,
            batch_size=options.batch_size,
            device=options.device,
            log_samples=False,
            bootstrap_iters=0,
        )
    except (OSError, ConnectionError) as error:  # data sets come from Hugging Face's hub, or its cache
        words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        remedy = "run it once where there is internet, with the same HF_HOME, or give --include-path"
        raise UserError("--tasks", f"the data of {', '.join(names)} cannot be had here ({words})", remedy) from None
    return {
        name: {key: value for key, value in each.items() if key != "alias"} for name, each in found["results"].items()
    }
