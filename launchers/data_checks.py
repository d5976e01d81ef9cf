"""What is checked of a run's token stores before it is submitted; no token is read for it."""

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ..config.errors import FoundBad, UserError
from ..config.model import ModelShape
from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..config.urls import is_url
from ..storage.checkpoints.checkpoint import committed_steps, open_checkpoint
from ..storage.loading.stages import Stages, require_same_past
from ..storage.loading.training_data import TrainingData
from ..storage.tokens.objects import TIMEOUT_VARIABLE, VARIABLES
from ..storage.tokens.tokenizer import take_tokenizer


def check_data(run: RunConfig, data: TrainingData, model: ModelShape) -> None:
    """Files, tokenizer and quality of the stores.

    Raises FoundBad naming a file that is missing or cut off, UserError for what does not suit the model or, unless
    data.quality says otherwise, went wrong when a store was made.
    """
    if warning := environment_warning(run, os.environ):
        print(f"warning: {warning}", file=sys.stderr)
    data.check_files()
    data.check_model(model)
    folder = Path(run.model).parent
    if (folder / "tokenizer.json").is_file() and take_tokenizer(folder).fingerprint() != data.tokenizer_fingerprint:
        remedy = f"build them with --tokenizer {folder}, or take the model's tokenizer.json away"
        raise UserError("data.train", f"the stores' tokenizer is not that of the model in {folder}", remedy)
    if run.data.quality == "off":
        return
    for where, problem in data.quality_problems(run.data.max_unknown):
        if run.data.quality == "stop":
            raise UserError(where, problem, "build it with the right tokenizer, or set data.quality=warn")
        print(f"warning: {where}: {problem}", file=sys.stderr)


def check_stages(old: RunConfig, new: RunConfig, run_dir: RunDir) -> None:
    """UserError if data.stages would change the samples before the newest checkpoint; a later change is said."""
    before, now = Stages.of(old.data).record(), Stages.of(new.data).record()
    change = require_same_past(before, now, _position(run_dir), new.data.sequence_length)
    if change is not None:
        tokens = change * new.data.sequence_length
        print(f"data.stages: other samples from position {change:,} ({tokens:,} tokens) on", file=sys.stderr)


def _position(run_dir: RunDir) -> int:
    """Samples read up to the newest checkpoint whose manifest is sound; the ranks look at the rest of it."""
    for step in reversed(committed_steps(run_dir)):
        with contextlib.suppress(FoundBad):
            return open_checkpoint(run_dir.checkpoint(step)).manifest.position
    return 0


def environment_warning(run: RunConfig, environment: Mapping[str, str]) -> str | None:
    """Variables that this shell reaches object stores by and that a job of a run which needs them will not have."""
    if not any(is_url(source.store) for source in run.data.train):
        return None
    here = [name for name in environment if name.startswith(VARIABLES) or name == TIMEOUT_VARIABLE]
    missing = sorted(set(here) - set(run.cluster.environment))
    return f"cluster.environment: {', '.join(missing)} of this shell will not be set in the job" if missing else None
