"""Checkpoints of megatron-core, DeepSpeed and torch's DCP, written by their own code, as Hugging Face folders."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from trainwright.cli.main import main
from trainwright.config.layout_rules import layout_of
from trainwright.config.loading import load_run
from trainwright.config.model_reader import read_model
from trainwright.parallelism.verify.drawn import DrawnState
from trainwright.parallelism.verify.ranks import run_forked
from trainwright.storage.checkpoints.rectangles import Rectangle, matrix_shape
from trainwright.storage.checkpoints.tensor_names import tensor_shapes

from .real_runs import DEEPSPEED_LAYOUTS, GLM4_MOE, LAYOUTS, QWEN3_MOE, WHOLE, Model, make_project

pytestmark = pytest.mark.ranks
LLAMA = Model("llama", tied=False)
Arrays = dict[str, np.ndarray]


def weights_of(run_file: Path) -> Arrays:
    """Hugging Face name -> the values that every checkpoint here is made with."""
    model = read_model(run_file.parent)
    found = {}
    for name, shape in tensor_shapes(model).items():
        rows, cols = matrix_shape(shape)
        place = Rectangle(row=0, num_rows=rows, col=0, num_cols=cols)
        found[name] = DrawnState(model).read_rectangle("weight", name, place).reshape(shape)
    return found


def by_an_engine(run_file: Path, layout: list[str], save: Callable[[Any], None]) -> None:
    """Ranks of a layout with these weights, and what they save by their engine's own means."""
    run = load_run(run_file, layout)
    model = read_model(run_file.parent)

    def work(rank: int) -> None:
        from trainwright.parallelism.engines import build_engine, prepare
        from trainwright.parallelism.ranks import join

        prepare(run)
        join(run.cluster.world_size)
        engine = build_engine(run, model, layout_of(run, model), rank)
        engine.load(DrawnState(model), 3)
        save(engine)

    run_forked(run.cluster.world_size, work, 300)


def convert(*arguments: object) -> int:
    """Exit code of the command."""
    try:
        return main(["convert", *map(str, arguments)])
    except SystemExit as end:
        return int(end.code or 0)


def converted(source: Path, run_file: Path, folder: Path) -> Arrays:
    """The tensors of the folder that `trainwright convert` makes."""
    assert convert(source, folder, "--model", run_file.parent / "config.json") == 0
    found: Arrays = load_file(folder / "model.safetensors")
    return found


def equal(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not np.array_equal(found[name], expected[name])] == []


def save_megatron(folder: Path) -> Callable[[Any], None]:
    """As Megatron-LM's torch_dist does: dist_checkpointing of the model's own sharded state."""

    def save(engine: Any) -> None:
        from megatron.core import dist_checkpointing

        state = {}
        for number, chunk in enumerate(engine._chunks):
            key = "model" if len(engine._chunks) == 1 else f"model{number}"
            state[key] = chunk.module.sharded_state_dict()
        dist_checkpointing.save(state, str(folder))

    return save


MEGATRON = {
    "tp2_pp2": (LLAMA, LAYOUTS["tp2_pp2"]),
    "pp2_vpp2": (Model("qwen3", tied=False), LAYOUTS["pp2_vpp2"]),
    "dp2": (Model("qwen2", tied=True), LAYOUTS["dp2"]),
}


@pytest.mark.parametrize("name", [*MEGATRON] if WHOLE else ["tp2_pp2"])
def test_of_megatron_core(tmp_path: Path, name: str) -> None:
    model, layout = MEGATRON[name]
    run_file = make_project(tmp_path, model)
    folder = tmp_path / "megatron" / "iter_0000003"
    folder.mkdir(parents=True)
    by_an_engine(run_file, layout, save_megatron(folder))
    (folder.parent / "latest_checkpointed_iteration.txt").write_text("3")
    equal(converted(folder.parent, run_file, tmp_path / "out"), weights_of(run_file))


@pytest.mark.parametrize("layout", [*DEEPSPEED_LAYOUTS] if WHOLE else ["zero3"])
@pytest.mark.parametrize("model", [LLAMA, GLM4_MOE, *([QWEN3_MOE] if WHOLE else [])], ids=str)
def test_of_deepspeed(tmp_path: Path, model: Model, layout: str) -> None:
    run_file = make_project(tmp_path, model)
    by_an_engine(
        run_file, DEEPSPEED_LAYOUTS[layout], lambda engine: engine._engine.save_checkpoint(str(tmp_path / "deepspeed"))
    )
    equal(converted(tmp_path / "deepspeed", run_file, tmp_path / "out"), weights_of(run_file))


def save_dcp(state: dict[str, Any], folder: Path) -> None:
    from torch.distributed.checkpoint.state_dict_saver import save

    save(state, checkpoint_id=folder, no_dist=True)


def test_of_torch_with_hugging_face_names(tmp_path: Path) -> None:
    """As a training script of one's own may save: weights below `model.`, an optimizer beside them, numbers."""
    run_file = make_project(tmp_path, LLAMA)
    weights = weights_of(run_file)
    tensors = {name: torch.from_numpy(values) for name, values in weights.items()}
    moments = {name: {"exp_avg": torch.zeros(3)} for name in weights}
    save_dcp({"model": tensors, "optimizer": {"state": moments}, "step": 7}, tmp_path / "dcp")
    equal(converted(tmp_path / "dcp", run_file, tmp_path / "out"), weights)


def interleaved(matrix: np.ndarray, head: int) -> np.ndarray:
    """Rows of each head as Llama's own code has them, which turns neighbours: 0, h/2, 1, h/2 + 1, ..."""
    heads = matrix.reshape(-1, head, matrix.shape[1])
    order = [place for pair in range(head // 2) for place in (pair, head // 2 + pair)]
    return heads[:, order].reshape(matrix.shape)


def test_neighbours_turned_are_halves_turned() -> None:
    """The two forms of a head give the same scores: proof of the order of rows that is taken for torchtitan's Llama."""
    draw, head, length = np.random.default_rng(1), 8, 5
    q, k, x = (draw.standard_normal(shape) for shape in ((head, 6), (head, 6), (length, 6)))
    angles = np.outer(np.arange(length), 10000.0 ** (-np.arange(0, head, 2) / head))

    def by_halves(y: np.ndarray) -> np.ndarray:
        first, second = y[:, : head // 2], y[:, head // 2 :]
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1)

    def by_neighbours(y: np.ndarray) -> Any:
        return (y[:, 0::2] + 1j * y[:, 1::2]) * np.exp(1j * angles)

    scores = by_halves(x @ q.T) @ by_halves(x @ k.T).T
    turned = (interleaved(each, head) for each in (q, k))
    first, second = (by_neighbours(x @ each.T) for each in turned)
    assert np.allclose(scores, (first @ second.conj().T).real)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_of_torchtitan(tmp_path: Path, family: str) -> None:
    run_file = make_project(tmp_path, Model(family, tied=False))
    weights, model = weights_of(run_file), read_model(run_file.parent)
    from trainwright.storage.foreign.names import _TITAN

    theirs = {"model.embed_tokens.weight": "tok_embeddings.weight", "model.norm.weight": "norm.weight"}
    theirs["lm_head.weight"] = "output.weight"
    for layer in range(model.num_layers):
        theirs |= {f"model.layers.{layer}.{name}": f"layers.{layer}.{titan}" for titan, name in _TITAN.items()}
    state = {}
    for name, values in weights.items():
        turned = family == "llama" and name.endswith(("q_proj.weight", "k_proj.weight"))
        state[theirs[name]] = torch.from_numpy(interleaved(values, model.head_dim) if turned else values)
    save_dcp(state | {"train_state": {"step": 3}}, tmp_path / "titan")
    equal(converted(tmp_path / "titan", run_file, tmp_path / "out"), weights)


class Evil:
    """What a pickle would run if it were loaded carelessly."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {os.environ['TRAP']}",)


@pytest.mark.parametrize("kind", ["dcp", "zero"])
def test_nothing_of_a_checkpoint_is_run(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pickle

    monkeypatch.setenv("TRAP", str(tmp_path / "trap"))
    source = tmp_path / "source"
    source.mkdir()
    if kind == "dcp":
        (source / ".metadata").write_bytes(pickle.dumps(Evil()))
    else:
        for name in ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"):
            torch.save({"module": Evil()}, source / name)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA.config()))
    assert convert(source, tmp_path / "out", "--model", tmp_path / "config.json") == 3
    assert "cannot be read safely" in capsys.readouterr().err
    assert not (tmp_path / "trap").exists()
    assert not (tmp_path / "out").exists()


def test_a_file_of_something_else_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"):
        torch.save({"param_shapes": []}, tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA.config()))
    assert convert(tmp_path, tmp_path / "out", "--model", tmp_path) == 3
    assert "optim_states.pt: has no optimizer_state_dict" in capsys.readouterr().err


def test_what_is_missing_or_too_much_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_file = make_project(tmp_path, LLAMA)
    tensors = {name: torch.from_numpy(values) for name, values in weights_of(run_file).items()}
    lost = "model.layers.2.mlp.up_proj.weight"
    cases = {
        f"{lost} is missing": {name: tensor for name, tensor in tensors.items() if name != lost},
        "model.layers.4.mlp.up_proj.weight is in it": tensors | {"model.layers.4.mlp.up_proj.weight": tensors[lost]},
        f"{lost} has shape [96, 63]": tensors | {lost: tensors[lost][:, 1:].contiguous()},
        f"{lost} holds NaN": tensors | {lost: tensors[lost] * torch.nan},
        "no embedding under a known name": {"some.weight": tensors[lost]},
    }
    for number, (words, state) in enumerate(cases.items()):
        save_dcp(state, tmp_path / f"case-{number}")
        assert convert(tmp_path / f"case-{number}", tmp_path / "out", "--model", tmp_path / "config.json") == 3
        assert words in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert convert(tmp_path / "text", tmp_path / "out", "--model", tmp_path) == 2
    assert "give the folder of one checkpoint" in capsys.readouterr().err
