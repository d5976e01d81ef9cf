"""Another attempt of a run that has ended, with the snapshot that it has, and what may differ from the last one."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from ..config.errors import UserError
from ..config.loading import dump_run, load_frozen, load_run
from ..config.model_reader import read_model
from ..config.run import RunConfig
from ..config.rundir import RunDir
from .data_checks import check_stages
from .run_checks import check_run, with_start
from .snapshot import require_intact
from .status import read_status
from .submission import Submitted, start_attempt

MAY_CHANGE = (
    "parallelism",
    "cluster",
    "checkpoint",
    "evaluation",
    "guards",
    "tracking",
    "preflight",
    "train.steps",
    "train.recompute",
    "train.deterministic",
    "train.micro_batch_size",
    "data.stages",
    "data.read",
    "data.stage_to",
    "data.on_bad_chunk",
    "data.quality",
    "data.max_unknown",
)
"""What another attempt may change; the rest decides what is computed. Of data.stages only what is still to come."""


def continue_run(run_dir: RunDir, overrides: Sequence[str]) -> Submitted:
    """Start another attempt of a run, with the snapshot that it has.

    Raises UserError if a field may not change, or while an attempt is queued or running, FoundBad if the snapshot is
    not what it was. A failed start leaves the run as it was.
    """
    old = load_frozen(run_dir.run_yaml)
    run = load_run(run_dir.run_yaml, overrides)
    _only_allowed_changes(old, run)
    digest = require_intact(run_dir)
    now = read_status(run_dir)
    if now.state in ("queued", "running"):
        raise UserError(str(run_dir.path), f"is {now.state}", f"wait for it, or `trainwright cancel {run_dir.path}`")
    _, data = check_run(run.model_copy(update={"model": str(run_dir.model_config)}))
    run = with_start(run, read_model(run_dir.model_config), data, run_dir)
    check_stages(old, run, run_dir)
    before = run_dir.run_yaml.read_text(encoding="utf-8")
    attempt = run_dir.next_attempt()
    try:
        run_dir.attempt_yaml(attempt).write_text(dump_run(run), encoding="utf-8")
        _replace(run_dir.run_yaml, dump_run(run))
        return start_attempt(run_dir, attempt, run, {"source": None, "overrides": list(overrides), "snapshot": digest})
    except BaseException:
        _replace(run_dir.run_yaml, before)
        run_dir.attempt_yaml(attempt).unlink(missing_ok=True)
        for folder in (run_dir.attempt_logs(attempt), run_dir.ledger_file(attempt, "submit").parent):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _only_allowed_changes(old: RunConfig, new: RunConfig) -> None:
    for field, before, after in _differences(old.model_dump(), new.model_dump(), ""):
        if not any(field == allowed or field.startswith(f"{allowed}.") for allowed in MAY_CHANGE):
            raise UserError(
                field,
                f"{after!r}, but the run was started with {before!r}",
                f"start a new run, or change only {', '.join(MAY_CHANGE)}",
            )


def _differences(old: object, new: object, field: str) -> list[tuple[str, object, object]]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [found for key in old for found in _differences(old[key], new[key], f"{field}.{key}".lstrip("."))]
    return [] if old == new else [(field, old, new)]


def _replace(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
