"""Training on instruction data: the mean over trained tokens, whichever rank has them; without any, no NaN."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import zarr

from trainwright.config.loading import load_run
from trainwright.config.rundir import RunDir
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.loading.training_data import TrainingData
from trainwright.tracking.recorder import read_metrics

from ..unit.storage.chats import write_chats, write_tokenizer
from .real_runs import LAYOUTS, LENGTH, RUN_FILE, Model, curve, engines_logits, train

pytestmark = pytest.mark.ranks
BATCH, STEPS = 4, 8
OPTIONS = ["data.document_mask=false", f"train.global_batch_size={BATCH}", "train.micro_batch_size=1"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of chats with questions so long that many samples have no trained token."""
    folder = tmp_path_factory.mktemp("chats")
    chats = [
        [
            {"role": "user", "content": f"hello {number} " * (1 + number % 4 * 16)},
            {"role": "assistant", "content": f"world {number} ok " * (1 + number % 5 * 3)},
        ]
        for number in range(60)
    ]
    options = BuildOptions(
        tokenizer=write_tokenizer(folder / "tokenizer"), chat=True, chat_template="chatml", workers=1
    )
    build_store([write_chats(folder / "chats.jsonl", chats)], folder / "store.zarr", options, lambda *_: None)
    model = Model("llama", False, (("vocab_size", 400),))
    (folder / "config.json").write_text(json.dumps(model.config()))
    (folder / "run.yaml").write_text(RUN_FILE)
    return folder / "run.yaml"


def masks(project: Path, steps: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.bool_]]:
    """Which targets of each step's samples are trained, bool [steps, BATCH, LENGTH], by zarr-python."""
    whole = zarr.open_array(project.parent / "store.zarr" / "loss_mask", mode="r")[:]
    data = TrainingData.open(load_run(project, OPTIONS).data)
    starts = [origin.sample * LENGTH for origin in data.explain(0, steps * BATCH)]
    rows = np.array([whole[start + 1 : start + LENGTH + 1] for start in starts])
    return rows.reshape(steps, BATCH, LENGTH).astype(bool)


@pytest.fixture(scope="module")
def two_ranks(project: Path) -> RunDir:
    return train(project, "two", [*OPTIONS, f"train.steps={STEPS}", *LAYOUTS["dp2"]])


def test_the_mean_is_over_trained_tokens_of_all_ranks(project: Path, two_ranks: RunDir, tmp_path: Path) -> None:
    mask = masks(project, STEPS)
    assert [record["tokens"] for record in read_metrics(two_ranks)] == mask.sum((1, 2)).tolist()
    ranks = mask.reshape(STEPS, 2, -1).sum(2)  # of each data parallel rank
    step = next(step for step in range(1, STEPS) if len(set(ranks[step].tolist())) == 2 and ranks[step].all())
    before = train(project, "before", [*OPTIONS, f"train.steps={step}"])
    tokens, logits = engines_logits(before, tmp_path / "logits.npz", shape=((step + 1) * BATCH, LENGTH))
    data = TrainingData.open(load_run(project, OPTIONS).data)
    labels = data.batch(step * BATCH, BATCH).tokens[:, 1:]
    assert np.array_equal(tokens[step * BATCH :, 1:], labels[:, :-1])
    logits = logits[step * BATCH :].astype(np.float64)
    highest = logits.max(-1)
    summed = np.log(np.exp(logits - highest[..., None]).sum(-1)) + highest
    losses = summed - np.take_along_axis(logits, labels[..., None], -1)[..., 0]
    expected = losses[mask[step]].mean()
    means = [losses[rows][mask[step][rows]].mean() for rows in (slice(0, 2), slice(2, 4))]
    assert abs(np.mean(means) - expected) > 1e-4 * expected, "a mean of means would pass"
    assert abs(curve(two_ranks)[step + 1][0] - expected) <= 1e-5 * expected


def test_a_batch_without_a_trained_token(project: Path, two_ranks: RunDir) -> None:
    counts = masks(project, STEPS).sum((1, 2)).tolist()
    assert 0 < counts.count(0) < STEPS
    for count, (loss, norm) in zip(counts, curve(two_ranks).values(), strict=True):
        assert math.isfinite(loss)
        assert min(loss, norm) > 0 if count else (loss, norm) == (0, 0)
