"""What a run of ours is in W&B: its settings, its axis, its checkpoints; the same live and in `sync`.

W&B itself is handed in: nothing here imports it.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.run import RunConfig
from ..config.rundir import RunDir


@dataclass(frozen=True, kw_only=True)
class CheckpointReference:
    """A committed checkpoint, as W&B is told of it."""

    step: int
    folder: Path
    digest: str
    """SHA-256 of its manifest.json, in hexadecimal."""


def open_run(wandb: Any, run: RunConfig, run_dir: RunDir, **how: Any) -> Any:
    """Start the W&B run of `run_dir`. `how`: wandb_id, mode, folder (W&B makes its `wandb/` in it), and any further
    W&B settings, such as init_timeout (seconds). Raises whatever W&B raises.

    The step is the axis of everything; the loss has its last and its smallest value in the summary.
    """
    about = run.tracking.wandb
    handle = wandb.init(
        project=about.project,
        entity=about.entity,
        group=about.group,
        tags=about.tags or None,
        notes=about.notes,
        name=run_dir.name,
        id=how.pop("wandb_id"),
        mode=how.pop("mode"),
        dir=str(how.pop("folder")),
        resume="allow",
        config=run.model_dump(mode="json"),
        settings=_settings(wandb, how),
    )
    handle.define_metric("step")
    handle.define_metric("*", step_metric="step")
    handle.define_metric("loss", step_metric="step", summary="last,min")
    return handle


def log_checkpoint(wandb: Any, handle: Any, checkpoint: CheckpointReference) -> None:
    """Tell W&B where the files of a checkpoint lie; none is read, copied or uploaded."""
    artifact = wandb.Artifact(
        f"{handle.name}-checkpoint",
        type="checkpoint",
        metadata={"step": checkpoint.step, "manifest_sha256": checkpoint.digest},
    )
    # The digest is in the name, since W&B takes two artifacts with the same names and references for one.
    name = f"{checkpoint.folder.name}-{checkpoint.digest[:12]}"
    artifact.add_reference(checkpoint.folder.as_uri(), name=name, checksum=False)
    handle.log_artifact(artifact, aliases=["latest", f"step-{checkpoint.step}"])


def _settings(wandb: Any, more: dict[str, Any]) -> Any:
    """No console capture, no look at git, code, packages or machine; SIGKILL loses 1 s at most."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # nothing about the caller goes to W&B's developers
    return wandb.Settings(
        console="off",
        silent=True,
        save_code=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_save_requirements=False,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_disable_viewer=True,
        x_transaction_log_flush_interval=1,  # the default, 15 s, leaves an empty file of a run killed earlier
        **more,
    )
