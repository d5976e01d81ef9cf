"""Where a run's state comes from at start: its newest sound checkpoint, another run's, or fresh weights."""

import sys
from pathlib import Path

import torch.distributed as dist

from ..config.errors import FoundBad, UserError
from ..config.model import ModelShape
from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..storage.checkpoints.adapters import BASE, FirstAdapters, WithBase, base_of, require_same_base
from ..storage.checkpoints.checkpoint import Checkpoint, committed_steps, find_checkpoint, open_checkpoint, require_fit
from ..storage.checkpoints.checkpoint_writer import set_aside
from ..storage.checkpoints.hf_weights import HuggingFaceWeights
from ..storage.checkpoints.tensor_source import InitialWeights, TensorSource
from ..storage.loading.stages import require_same_past
from ..storage.loading.training_data import TrainingData
from .ranks import Rank, all_agree, from_rank_zero


def find_start(run: RunConfig, run_dir: RunDir, model: ModelShape, data: TrainingData, me: Rank) -> Checkpoint | None:
    """The checkpoint to go on from, checked by all ranks together, or None for fresh weights.

    A corrupt newest checkpoint of this run is renamed, with a message, and the one before is used. Another run's
    checkpoint (checkpoint.resume_from) is never touched: a corrupt one is a FoundBad. Raises UserError if a checkpoint
    does not fit model and tokenizer, a store was packed anew since this run's, or data.stages changed before it.
    """
    fingerprint = data.tokenizer_fingerprint
    while True:
        steps = committed_steps(run_dir) if me.rank == 0 else []
        step = from_rank_zero(steps[-1] if steps else -1)
        if step < 0:
            break
        folder = run_dir.checkpoint(step)
        problem = _problem(folder, me)
        if all_agree(problem is None):
            checkpoint = open_checkpoint(folder)
            require_fit(checkpoint, run, model, fingerprint)
            _check_order(checkpoint, run, data, me)
            return checkpoint
        if me.rank == 0:
            aside = set_aside(folder)
            print(f"checkpoint {folder.name} is corrupt and was set aside as {aside.name}", file=sys.stderr, flush=True)
        if problem is not None:
            print(str(problem), file=sys.stderr, flush=True)
        dist.barrier()
    if run.checkpoint.resume_from is None:
        return None
    checkpoint = find_checkpoint(run.checkpoint.resume_from)
    require_fit(checkpoint, run, model, fingerprint)
    checkpoint.check_files(me.rank, me.world_size)
    return checkpoint


def _check_order(checkpoint: Checkpoint, run: RunConfig, data: TrainingData, me: Rank) -> None:
    """Raises UserError unless the samples up to this run's checkpoint are those that it was trained on."""
    manifest, now = checkpoint.manifest, data.order_record
    if manifest.order.get("packing", []) != now["packing"]:
        changed = f"a store was packed anew since step {manifest.step} of this run, so its samples are others"
        raise UserError("data.packing", changed, "restore the index, or start a new run from this checkpoint")
    before = manifest.order.get("stages", now["stages"])  # older versions had no stages, and recorded none
    change = require_same_past(before, now["stages"], manifest.position, run.data.sequence_length)
    if change is not None and me.rank == 0:
        print(f"data.stages: others than the checkpoint's from position {change} on", file=sys.stderr, flush=True)


def state_of(checkpoint: Checkpoint, run: RunConfig, model: ModelShape) -> TensorSource:
    """All that an engine is to be filled with: what the checkpoint has, and the weights that its adapters adapt.

    Raises UserError if these are not what they were.
    """
    if run.train.lora is None:
        return checkpoint
    require_same_base(run, model, checkpoint.manifest.scalars.get(BASE))
    return WithBase(base_of(run, model), checkpoint)


def first_weights(run: RunConfig, model: ModelShape) -> TensorSource:
    """Where a run without a checkpoint starts: a Hugging Face folder's weights, or random ones."""
    if run.train.lora is not None:
        return WithBase(base_of(run, model), FirstAdapters(run.train.lora, model, run.train.seed))
    if run.checkpoint.init_from is not None:
        return HuggingFaceWeights(Path(run.checkpoint.init_from), model)
    return InitialWeights(model, run.train.seed)


def _problem(folder: Path, me: Rank) -> FoundBad | None:
    """What is wrong with this rank's share of the files."""
    try:
        open_checkpoint(folder).check_files(me.rank, me.world_size)
    except FoundBad as error:
        return error
    return None
