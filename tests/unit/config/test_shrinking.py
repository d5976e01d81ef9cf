"""A run made small keeps what a layout can get wrong."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from trainwright.config.errors import UserError
from trainwright.config.layout_rules import layout_of
from trainwright.config.loading import load_run
from trainwright.config.model import ExpertShape, ModelShape
from trainwright.config.model_file import model_config
from trainwright.config.model_reader import read_model
from trainwright.config.shrinking import VOCABULARY, shrink

EXAMPLES = sorted((Path(__file__).resolve().parents[3] / "examples").glob("*-gpus.yaml"))
_AXES = ("tensor", "context", "pipeline", "virtual_pipeline", "expert", "expert_tensor")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples(path: Path, tmp_path: Path) -> None:
    run = load_run(path)
    model = read_model(Path(run.model))
    small, shape = shrink(run, model)
    assert layout_of(small, shape).world_size <= 16
    assert shape.num_parameters() < 200_000
    assert (shape.tied, shape.qk_norm, shape.rope_scaling) == (model.tied, model.qk_norm, model.rope_scaling)
    (tmp_path / "config.json").write_text(json.dumps(model_config(shape)))
    assert read_model(tmp_path) == shape


def test_any_layout(run_file: Path, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng, tried = random.Random(seed), 0
    while tried < 150:
        run, model = _drawn(rng, run_file)
        try:
            layout = layout_of(run, model)
        except UserError:
            continue
        tried += 1
        small, shape = shrink(run, model)
        found = layout_of(small, shape)
        assert found.world_size <= 16
        for axis in _AXES:
            assert (getattr(found, axis) > 1) == (getattr(layout, axis) > 1), axis
        assert found.data >= min(layout.data, 2)
        assert (shape.num_kv_heads < found.tensor) == (model.num_kv_heads < layout.tensor)
        assert (shape.num_kv_heads == shape.num_heads) == (model.num_kv_heads == model.num_heads)
        assert (len(set(found.chunk_layers)) > 1) == (len(set(layout.chunk_layers)) > 1)
        assert shape.vocab_size == VOCABULARY
        assert small.train.optimizer == run.train.optimizer
        if model.experts and shape.experts:
            assert (shape.experts.shared_ffn_size is None) == (model.experts.shared_ffn_size is None)
            mixed = [0 < len(each.experts.layers) < each.num_layers for each in (model, shape) if each.experts]
            assert mixed[0] == mixed[1]
        (tmp_path / "config.json").write_text(json.dumps(model_config(shape)))
        assert read_model(tmp_path) == shape


def _drawn(rng: random.Random, run_file: Path) -> tuple:  # type: ignore[type-arg]
    base = read_model(run_file.parent / "model")
    heads, layers = rng.choice((4, 8, 32)), rng.choice((4, 6, 8, 16))
    model = replace(
        base,
        family="qwen3_moe",
        qk_norm=True,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=rng.choice([size for size in (1, 2, 4, 8, 32) if heads % size == 0]),
        head_dim=32,
        hidden_size=heads * rng.choice((16, 32)),
        ffn_size=512,
        tied=rng.random() < 0.5,
        experts=_experts(rng, layers) if rng.random() < 0.5 else None,
    )
    model = replace(model, family="qwen3_moe" if model.experts else "qwen3")
    pipeline, virtual = rng.choice((1, 2, 4)), rng.choice((1, 1, 2))
    overrides = [
        f"parallelism.tensor={rng.choice((1, 2, 4, 8))}",
        f"parallelism.context={rng.choice((1, 1, 2, 4))}",
        f"parallelism.pipeline={pipeline}",
        f"parallelism.virtual_pipeline={virtual if pipeline > 1 else 1}",
        f"parallelism.expert={rng.choice((1, 2, 4)) if model.experts else 1}",
        "parallelism.sequence=true",
        f"cluster.nodes={rng.choice((1, 2, 8))}",
        "cluster.ranks_per_node=8",
        f"train.global_batch_size={rng.choice((64, 128))}",
        f"train.micro_batch_size={rng.choice((1, 2, 4))}",
        "data.sequence_length=64",
    ]
    if pipeline > 1 and rng.random() < 0.4:
        chunks = pipeline * (virtual if pipeline > 1 else 1)
        share = [layers // chunks] * chunks
        share[0], share[-1] = share[0] + 1, share[-1] - 1
        if share[-1] > 0 and sum(share) == layers:
            overrides.append(f"parallelism.stage_layers={share}")
    return load_run(run_file, overrides), model


def _experts(rng: random.Random, layers: int) -> ExpertShape:
    return ExpertShape(
        num_experts=rng.choice((4, 8, 64)),
        num_active=rng.choice((2, 4)),
        ffn_size=128,
        shared_ffn_size=None,
        normalized=True,
        aux_loss_coef=0.01,
        layers=tuple(range(rng.choice((0, 1)), layers)),
    )


def test_a_layout_that_breaks_a_rule_is_the_users(run_file: Path) -> None:
    run = load_run(run_file, ["parallelism.tensor=3"])
    model: ModelShape = read_model(Path(run.model))
    with pytest.raises(UserError, match="num_attention_heads"):
        shrink(run, model)
