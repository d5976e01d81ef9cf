"""What is checked of a run before anything is written: model, layout, stores, start, and the place it is for."""

import contextlib
from pathlib import Path

from ..config.cluster import ClusterConfig
from ..config.errors import FoundBad, UserError
from ..config.layout import Layout
from ..config.layout_rules import layout_of
from ..config.model import ModelShape
from ..config.model_reader import read_model
from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..storage.checkpoints.adapters import BASE, require_same_base
from ..storage.checkpoints.checkpoint import committed_steps, find_checkpoint, open_checkpoint, require_fit
from ..storage.checkpoints.hf_weights import HuggingFaceWeights
from ..storage.loading.held_out import held_out_data
from ..storage.loading.training_data import TrainingData
from ..storage.tokens.tokenizer import take_tokenizer
from .cluster_limits import require_possible
from .container import require_container
from .data_checks import check_data
from .slurm import Slurm


def check_run(run: RunConfig) -> tuple[Layout, TrainingData]:
    """Check model, layout, stores and cluster as far as this machine can; UserError names what is wrong."""
    model = read_model(Path(run.model))
    layout = layout_of(run, model)
    data = TrainingData.open(run.data)
    check_data(run, data, model)
    held_out_data(run, model, data.tokenizer_fingerprint)
    _check_place(run.cluster.on_tier())
    return layout, data


def prepare_run(run: RunConfig) -> tuple[RunConfig, TrainingData]:
    """Check a new run; as it will be frozen, and its data. Raises UserError; writes nothing."""
    _, data = check_run(run)
    return with_start(_with_generations(run, data), read_model(Path(run.model)), data, None), data


def _with_generations(run: RunConfig, data: TrainingData) -> RunConfig:
    """Pin the generations of the stores, so that what is appended later does not change the run's order."""
    pairs = zip(run.data.train, data.generations, strict=True)
    train = [source.model_copy(update={"generation": generation}) for source, generation in pairs]
    held = held_out_data(run, read_model(Path(run.model)), data.tokenizer_fingerprint).values()
    pairs_held = zip(run.evaluation.stores, (each.generations[0] for each in held), strict=True)
    stores = [store.model_copy(update={"generation": generation}) for store, generation in pairs_held]
    update = {
        "data": run.data.model_copy(update={"train": train}),
        "evaluation": run.evaluation.model_copy(update={"stores": stores}),
    }
    return run.model_copy(update=update)


def with_start(run: RunConfig, model: ModelShape, data: TrainingData, run_dir: RunDir | None) -> RunConfig:
    """Check the checkpoint that training would go on from, and name another run's by its folder.

    A name means nothing on a node. A corrupt checkpoint is left to the ranks: they set it aside.
    """
    steps = committed_steps(run_dir) if run_dir else []
    if run_dir and steps:
        with contextlib.suppress(FoundBad):
            newest = open_checkpoint(run_dir.checkpoint(steps[-1]))
            require_fit(newest, run, model, data.tokenizer_fingerprint)
            if run.train.lora is not None:
                require_same_base(run, model, newest.manifest.scalars.get(BASE))
        return run
    if run.checkpoint.init_from is not None:
        _check_weights(Path(run.checkpoint.init_from), model, data.tokenizer_fingerprint)
    if run.checkpoint.resume_from is None:
        return run
    try:
        checkpoint = find_checkpoint(run.checkpoint.resume_from)
    except UserError as error:
        raise UserError("checkpoint.resume_from", error.problem, error.remedy) from None
    require_fit(checkpoint, run, model, data.tokenizer_fingerprint)
    section = run.checkpoint.model_copy(update={"resume_from": str(checkpoint.folder)})
    return run.model_copy(update={"checkpoint": section})


def _check_weights(folder: Path, model: ModelShape, fingerprint: str) -> None:
    """The folder holds the model's weights, and its tokenizer, if it has one, is that of the stores."""
    HuggingFaceWeights(folder, model)
    if (folder / "tokenizer.json").is_file() and take_tokenizer(folder).fingerprint() != fingerprint:
        remedy = f"build them with --tokenizer {folder}"
        raise UserError("data.train", f"the stores' tokenizer is not that of checkpoint.init_from {folder}", remedy)


def _check_place(cluster: ClusterConfig) -> None:
    if cluster.scheduler == "slurm":
        Slurm(cluster).check()
        require_possible(cluster)
        require_container(cluster)
