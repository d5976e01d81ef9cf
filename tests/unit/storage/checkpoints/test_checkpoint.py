"""Checkpoints on disk: whole or absent, read by rectangle, damage named by file."""

import random
from pathlib import Path

import numpy as np
import pytest

from trainwright.config.errors import FoundBad, UserError
from trainwright.config.loading import load_frozen
from trainwright.config.model_reader import read_model
from trainwright.config.rundir import RunDir
from trainwright.storage.checkpoints.checkpoint import committed_steps, find_checkpoint, open_checkpoint, require_fit
from trainwright.storage.checkpoints.checkpoint_writer import (
    OwnedRectangle,
    prepare_folder,
    remove_old,
    set_aside,
    write_rank_files,
)
from trainwright.storage.checkpoints.manifest import FILE_NAME
from trainwright.storage.checkpoints.rectangles import Rectangle, matrix_shape
from trainwright.storage.checkpoints.tensor_source import InitialWeights

from ...serving.small_run import make_run, weights_of, write_checkpoint


@pytest.fixture(params=[1, 3])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunDir:
    return make_run(tmp_path / "runs", num_ranks=request.param)


def test_any_rectangle_is_read_back(run: RunDir) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    checkpoint, weights = find_checkpoint(str(run.path)), weights_of(run)
    assert set(checkpoint.shapes()) == set(weights)
    for name, expected in weights.items():
        matrix = expected.reshape(matrix_shape(expected.shape))
        for _ in range(5):
            row, col = draw.randrange(matrix.shape[0]), draw.randrange(matrix.shape[1])
            rows, cols = draw.randint(1, matrix.shape[0] - row), draw.randint(1, matrix.shape[1] - col)
            place = Rectangle(row=row, num_rows=rows, col=col, num_cols=cols)
            got = checkpoint.read_rectangle("weight", name, place)
            assert (got == matrix[row : row + rows, col : col + cols]).all()
        assert (checkpoint.read("weight", name) == expected).all()


def test_every_damaged_byte_is_seen(run: RunDir) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    checkpoint = find_checkpoint(str(run.path))
    checkpoint.check_files()
    for name in checkpoint.manifest.files:
        path = checkpoint.folder / name
        whole = path.read_bytes()
        at = draw.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(FoundBad, match=name):
            checkpoint.check_files()
        path.write_bytes(whole[:-1])
        with pytest.raises(FoundBad, match=f"{name}.*bytes"):
            checkpoint.check_files()
        path.unlink()
        with pytest.raises(FoundBad, match=f"{name}.*missing"):
            checkpoint.check_files()
        path.write_bytes(whole)


def test_a_hole_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", num_ranks=3)
    checkpoint = find_checkpoint(str(run.path))
    del checkpoint.manifest.files["rank-00001.json"]
    with pytest.raises(FoundBad, match=r"weight of model\.embed_tokens\.weight lacks"):
        checkpoint.read("weight", "model.embed_tokens.weight")


def test_without_manifest_it_is_no_checkpoint(run: RunDir) -> None:
    folder = run.checkpoint(5)
    (folder / FILE_NAME).unlink()
    assert committed_steps(run) == []
    with pytest.raises(UserError, match=FILE_NAME):
        open_checkpoint(folder)
    with pytest.raises(UserError, match="no checkpoint yet"):
        find_checkpoint(str(run.path))
    prepare_folder(folder)
    assert list(folder.iterdir()) == []


def test_find_by_step(run: RunDir) -> None:
    write_checkpoint(run, 8, "fp32", 1)
    assert find_checkpoint(str(run.path)).manifest.step == 8
    assert find_checkpoint(f"{run.path}@5").manifest.step == 5
    assert find_checkpoint(str(run.checkpoint(5))).manifest.step == 5
    with pytest.raises(UserError, match=r"use one of \[5, 8\]"):
        find_checkpoint(f"{run.path}@6")


def test_old_ones_are_removed_and_a_corrupt_one_is_kept_aside(run: RunDir) -> None:
    for step in (6, 7):
        write_checkpoint(run, step, "fp32", 1)
    assert remove_old(run, keep=2) == [5]
    assert committed_steps(run) == [6, 7]
    assert set_aside(run.checkpoint(7)).name == "step-00000007.corrupt-1"
    assert committed_steps(run) == [6]


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    good = OwnedRectangle("weight", "a", Rectangle(row=0, num_rows=1, col=0, num_cols=2), np.ones((1, 2), np.float32))
    write_rank_files(tmp_path, 0, [good])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rank-00000.json", "rank-00000.safetensors"]
    from safetensors.numpy import load_file

    (values,) = load_file(tmp_path / "rank-00000.safetensors").values()
    assert (values == good.values).all()


def test_what_does_not_fit_is_refused_by_field(run: RunDir) -> None:
    checkpoint, config = find_checkpoint(str(run.path)), load_frozen(run.run_yaml)
    model, fingerprint = read_model(run.model_config), checkpoint.manifest.tokenizer_fingerprint
    require_fit(checkpoint, config, model, fingerprint)
    with pytest.raises(UserError, match=r"^data\.train: tokenizer"):
        require_fit(checkpoint, config, model, "another")
    import dataclasses

    with pytest.raises(UserError, match=r"^model: lm_head\.weight has shape None"):
        require_fit(checkpoint, config, dataclasses.replace(model, tied=True), fingerprint)
    optimizer = config.train.optimizer.model_copy(update={"name": "muon"})
    other = config.model_copy(update={"train": config.train.model_copy(update={"optimizer": optimizer})})
    with pytest.raises(UserError, match=r"^train\.optimizer\.name: muon, but checkpoint .* has the state of adamw"):
        require_fit(checkpoint, other, model, fingerprint)
    short = config.model_copy(update={"train": config.train.model_copy(update={"steps": 4})})
    with pytest.raises(UserError, match=r"^train\.steps: 4 is below the step 5"):
        require_fit(checkpoint, short, model, fingerprint)


def test_initial_weights_do_not_depend_on_how_they_are_read(run: RunDir) -> None:
    model = read_model(run.model_config)
    source = InitialWeights(model, seed=3)
    name = "model.embed_tokens.weight"
    whole = source.read_rectangle("weight", name, Rectangle(row=0, num_rows=320, col=0, num_cols=64))
    part = source.read_rectangle("weight", name, Rectangle(row=61, num_rows=130, col=5, num_cols=9))
    assert (part == whole[61:191, 5:14]).all()
    assert abs(float(whole.std()) - model.init_std) < 0.05 * model.init_std
    other = InitialWeights(model, seed=4)
    assert not (
        other.read_rectangle("weight", name, Rectangle(row=0, num_rows=9, col=0, num_cols=64)) == whole[:9]
    ).any()
