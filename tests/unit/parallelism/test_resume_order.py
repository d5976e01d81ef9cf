"""Ranks go on from a checkpoint only if the samples before it are those that it was trained on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainwright.config.errors import UserError
from trainwright.config.loading import load_run
from trainwright.parallelism.ranks import Rank
from trainwright.parallelism.resume import _check_order
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.building.sources import Selection
from trainwright.storage.checkpoints.checkpoint import open_checkpoint
from trainwright.storage.checkpoints.manifest import read_manifest, write_manifest
from trainwright.storage.loading.training_data import TrainingData

from ..serving.small_run import make_run

NOW = [{"first": 0, "quotas": [1]}, {"first": 30, "quotas": [1]}]
THE_CHECKPOINTS = [  # its position is 20
    (None, ""),
    (NOW, ""),
    (NOW[:1], "data.stages: others than the checkpoint's from position 30 on\n"),
    ([NOW[0], {"first": 20, "quotas": [1]}], "data.stages: others than the checkpoint's from position 20 on\n"),
    ([NOW[0], {"first": 19, "quotas": [1]}], None),
    ([{"first": 0, "quotas": [2]}], None),
]


@pytest.mark.parametrize(("recorded", "said"), THE_CHECKPOINTS)
def test_stages_before_a_checkpoint_stay(
    recorded: list[dict[str, Any]] | None, said: str | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path / "runs").checkpoint(5)
    (tmp_path / "text.txt").write_text("some words " * 400)
    build_store(
        [tmp_path / "text.txt"], tmp_path / "store.zarr", BuildOptions(vocab_size=260, selection=Selection()), print
    )
    (tmp_path / "run.yaml").write_text((tmp_path / "runs" / "small" / "run.yaml").read_text())
    run = load_run(tmp_path / "run.yaml", ["data.stages=[{until_tokens: 960}, {}]"])
    manifest = read_manifest(folder)
    order = manifest.order | ({} if recorded is None else {"stages": recorded})
    write_manifest(folder, replace(manifest, order=order))
    checkpoint, data = open_checkpoint(folder), TrainingData.open(run.data)
    capfd.readouterr()
    if said is None:
        with pytest.raises(UserError, match=r"^data\.stages: change what 640 tokens of this run were read by"):
            _check_order(checkpoint, run, data, Rank(0, 1, 0))
    else:
        _check_order(checkpoint, run, data, Rank(0, 1, 0))
    assert capfd.readouterr().err == (said or "")
