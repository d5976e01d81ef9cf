"""Saving a checkpoint on every rank, so that it is committed whole or not at all."""

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ..config.errors import CannotWrite, UserError
from ..config.layout import Layout
from ..config.model import ModelShape
from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..config.versions import installed_versions
from ..storage.checkpoints.adapters import BASE, base_of, trained_shapes
from ..storage.checkpoints.checkpoint import HELD_OUT, best_step, held_out_losses
from ..storage.checkpoints.checkpoint_writer import files_written, prepare_folder, remove_old, write_rank_files
from ..storage.checkpoints.manifest import FORMAT_VERSION, Manifest, write_manifest
from ..storage.checkpoints.slots import SLOTS
from ..storage.loading.training_data import TrainingData
from ..tracking.ledger import LedgerWriter
from .engine import Engine
from .ranks import Rank, all_agree, from_rank_zero


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far training is: what the manifest says besides the tensors."""

    step: int
    tokens: int
    position: int
    updates: int
    """Optimizer updates applied (steps less those skipped)."""
    held_out: dict[str, float] | None = None
    """Held-out loss by store, if this step was evaluated."""


@dataclass(frozen=True, kw_only=True)
class Saver:
    """Saves the engine's state into the run's checkpoint folders; every rank calls `save` at the same step."""

    run: RunConfig
    run_dir: RunDir
    model: ModelShape
    layout: Layout
    data: TrainingData
    me: Rank
    ledger: LedgerWriter
    attempt: int
    wandb_id: str | None

    @cached_property
    def lora(self) -> dict[str, Any]:
        """What the manifest says of adapters, and of the weights beside which they stand."""
        lora = self.run.train.lora
        if lora is None:
            return {}
        return {"lora": lora.model_dump(mode="json"), BASE: base_of(self.run, self.model).sampled_digest()}

    def save(self, engine: Engine, progress: Progress) -> None:
        """Write, agree, commit, remove old ones. CannotWrite on every rank if a rank's disk refuses."""
        folder = self.run_dir.checkpoint(progress.step)
        self._refuse_if_superseded()
        self.ledger.write("save", step=progress.step)
        error = self._attempt(lambda: prepare_folder(folder)) if self.me.rank == 0 else None
        self._all_or_nothing(error, folder)
        self._all_or_nothing(
            self._attempt(lambda: write_rank_files(folder, self.me.rank, engine.owned_state())), folder
        )
        self._refuse_if_superseded()
        error = None
        if self.me.rank == 0:
            error = self._attempt(lambda: write_manifest(folder, self._manifest(folder, progress)))
        self._all_or_nothing(error, folder)
        if self.me.rank == 0:
            self.ledger.write("commit", step=progress.step, tokens=progress.tokens)
            best = best_step(held_out_losses(self.run_dir)) if self.run.evaluation.keep_best else None
            remove_old(self.run_dir, self.run.checkpoint.keep, best)
        dist.barrier()

    def _refuse_if_superseded(self) -> None:
        """Ranks that Slurm has given up, on nodes that it cannot reach, must not write beside their successors."""
        newest = from_rank_zero(self.run_dir.attempts()[-1] if self.me.rank == 0 else 0)
        if newest > self.attempt:
            raise UserError(
                str(self.run_dir.path),
                f"attempt {newest} has begun, and this is {self.attempt}",
                "nothing is to be done",
            )

    def _attempt(self, write: Any) -> OSError | None:
        try:
            write()
        except OSError as error:
            return error
        return None

    def _all_or_nothing(self, error: OSError | None, folder: Path) -> None:
        """Go on only if no rank failed; else remove what was written and stop on every rank."""
        if all_agree(error is None):
            return
        dist.barrier()
        if self.me.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
        if error is None:
            raise CannotWrite(str(folder), "another rank could not write its part", "see that rank's log")
        where = error.filename or folder
        raise CannotWrite(str(where), f"could not be written ({error.strerror})", "free some space or mend the folder")

    def _manifest(self, folder: Path, progress: Progress) -> Manifest:
        digest = self.run_dir.code_digest
        return Manifest(
            format_version=FORMAT_VERSION,
            step=progress.step,
            tokens=progress.tokens,
            position=progress.position,
            order=self.data.order_record,
            scalars={
                "optimizer": self.run.train.optimizer.name,
                "optimizer_steps": progress.updates,
                "schedule": self.run.train.schedule.model_dump(mode="json"),
                **({HELD_OUT: progress.held_out} if progress.held_out else {}),
                **self.lora,
                "random_state": "none drawn while training; initial weights from train.seed",
            },
            layout=self.layout.sizes(),
            engine=self.run.parallelism.engine,
            precision=self.run.train.precision,
            versions=installed_versions(),
            tensors={name: list(shape) for name, shape in trained_shapes(self.run, self.model).items()},
            slots=list(SLOTS),
            files=files_written(folder, self.me.world_size),
            tokenizer_fingerprint=self.data.tokenizer_fingerprint,
            snapshot_digest=json.loads(digest.read_text())["sha256"] if digest.is_file() else "unknown",
            wandb_id=self.wandb_id,
        )
