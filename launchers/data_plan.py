"""What a run will read: samples, tokens and epochs of each store in each stage; no token is read for it."""

from dataclasses import dataclass

from ..config.data import DataConfig
from ..config.errors import FoundBad, UserError
from ..config.run import RunConfig
from ..storage.loading.samples import PackedSamples, SplitSamples
from ..storage.loading.stages import Stages
from ..storage.tokens.locations import locate
from ..storage.tokens.reader import open_store

MAX_EPOCHS = 4.0
"""Up to here a store that is read again teaches almost as much as new text would; then soon less and less
(Muennighoff and others, Scaling Data-Constrained Language Models, 2023)."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one store gives to one stage."""

    stage: int
    """Of data.stages, from 0; 0 without stages."""
    source: str
    store: str
    samples: int
    tokens: int
    share: float
    """Of the stage's samples; 0 if the run ends before this stage."""
    epochs: float | None
    """How many times the store is read in this stage; None where this machine cannot see how large it is."""


def shares_of(run: RunConfig) -> list[Share]:
    """What each stage takes of each store until the run's last step. Raises UserError for an impossible weight."""
    data = run.data
    sizes = [_num_samples(number, data) for number in range(len(data.train))]
    shares = []
    for stage, counts in enumerate(Stages.of(data).counts(run.train.steps * run.train.global_batch_size).tolist()):
        for source, size, count in zip(data.train, sizes, counts, strict=True):
            share = Share(
                stage=stage,
                source=source.label,
                store=source.store,
                samples=count,
                tokens=count * data.sequence_length,
                share=count / max(1, sum(counts)),
                epochs=None if size is None else count / size,
            )
            shares.append(share)
    return shares


def warnings_of(shares: list[Share], data: DataConfig) -> list[str]:
    """What a person should look at twice."""
    warnings = []
    for number, source in enumerate(data.train):
        epochs = sum(share.epochs or 0 for share in shares if share.store == source.store)
        if epochs > MAX_EPOCHS:
            problem = f"{source.label} is read {epochs:.1f} times; beyond {MAX_EPOCHS:g} repetition teaches little"
            warnings.append(f"data.train.{number}.store: {problem}")
    for number, stage in enumerate(data.stages[:-1], start=1):
        if not any(share.samples for share in shares if share.stage == number):
            problem = f"begins at {stage.until_tokens:,} tokens, after the run's last step"
            warnings.append(f"data.stages.{number}: {problem}")
    return warnings


def _num_samples(number: int, data: DataConfig) -> int | None:
    """Samples of a store, None if it cannot be read here: `submit` says why."""
    source = data.train[number]
    try:
        store = open_store(locate(source.store), generation=source.generation)
        kind = PackedSamples if data.packing == "best_fit" else SplitSamples
        return kind(store, data.sequence_length).num_samples or None
    except (UserError, FoundBad):
        return None
