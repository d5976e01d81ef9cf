"""Which layouts are possible, and where each rank sits."""

import json
from pathlib import Path

import pytest

from trainwright.config.errors import UserError
from trainwright.config.layout import Layout
from trainwright.config.layout_rules import layout_of
from trainwright.config.loading import load_run
from trainwright.config.model import read_model

TENSOR2 = ("cluster.ranks_per_node=2", "parallelism.tensor=2", "parallelism.sequence=true")


def layout(run_file: Path, *overrides: str) -> Layout:
    run = load_run(run_file, overrides)
    return layout_of(run, read_model(Path(run.model)))


DEEPSPEED = ("parallelism.engine=deepspeed",)


@pytest.mark.parametrize(
    ("overrides", "sizes"),
    [
        ((), (1, 1, 1)),
        (("cluster.ranks_per_node=2", "parallelism.tensor=2"), (2, 1, 1)),
        (("cluster.ranks_per_node=4", "parallelism.tensor=4"), (4, 1, 1)),  # two ranks share each key-value head
        (("cluster.nodes=2", "parallelism.pipeline=2"), (1, 2, 1)),
        (("cluster.nodes=2", "cluster.ranks_per_node=4", "parallelism.tensor=2", "parallelism.pipeline=2"), (2, 2, 2)),
        (("cluster.ranks_per_node=4",), (1, 1, 4)),
    ],
)
def test_possible_layouts(run_file: Path, overrides: tuple[str, ...], sizes: tuple[int, int, int]) -> None:
    found = layout(run_file, *overrides)
    assert (found.tensor, found.pipeline, found.data) == sizes
    assert found.context == 1
    assert found.world_size == sizes[0] * sizes[1] * sizes[2]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("parallelism.tensor=3",), "parallelism.tensor: 3 does not divide the model's num_attention_heads 4"),
        (("parallelism.tensor=8",), "use one of [1, 2, 4]"),
        (("parallelism.pipeline=3",), "parallelism.pipeline: 3 does not divide the model's num_hidden_layers 4"),
        (("parallelism.pipeline=3",), "use one of [1, 2, 4] or stage_layers=[2, 1, 1]"),
        (
            ("parallelism.pipeline=2", "parallelism.virtual_pipeline=3"),
            "2 x virtual_pipeline 3 does not divide the model's num_hidden_layers 4",
        ),
        (("parallelism.virtual_pipeline=2",), "parallelism.virtual_pipeline: 2 at pipeline 1"),
        (("parallelism.pipeline=2", "parallelism.stage_layers=[4]"), "has 1 numbers, and there are 2 chunks"),
        (("parallelism.pipeline=2", "parallelism.stage_layers=[2, 3]"), "is 5 layers, and the model's"),
        (
            (
                "cluster.nodes=2",
                "parallelism.pipeline=2",
                "parallelism.virtual_pipeline=2",
                "train.global_batch_size=6",
                "train.micro_batch_size=2",
            ),
            "6 is 3 micro batches, no multiple of pipeline 2, which virtual_pipeline needs; use 4 or 8",
        ),
        (
            ("cluster.ranks_per_node=2", "parallelism.context=2", "data.sequence_length=30"),
            "data.sequence_length: 30 is not a multiple of 4, as parallelism.context 2 needs; use 28 or 32",
        ),
        (
            (
                "cluster.ranks_per_node=12",
                "parallelism.tensor=4",
                "parallelism.context=3",
                "parallelism.sequence=true",
                "data.sequence_length=6",
            ),
            "6 is not a multiple of 12, as parallelism.context 3 and parallelism.tensor 4 need; use 12",
        ),
        (
            ("parallelism.zero=2",),
            "zero: 2, but megatron shares only the optimizer's state; use zero 0 or 1, or",
        ),
        (("parallelism.offload_folder=/scratch",), "offload_folder: /scratch with offload none; take it out, or set"),
        (("parallelism.zero=3",), "or parallelism.engine=deepspeed"),
        (("parallelism.offload=cpu",), "parallelism.offload: cpu, but megatron keeps its state on the GPU"),
        ((*DEEPSPEED, "parallelism.zero=0"), "parallelism.zero: 0 with engine deepspeed; use 1, 2 or 3"),
        ((*DEEPSPEED, "parallelism.pipeline=2"), "use 1 and zero 3, or parallelism.engine=megatron"),
        ((*DEEPSPEED, "parallelism.virtual_pipeline=2"), "parallelism.virtual_pipeline: 2 with engine deepspeed"),
        ((*DEEPSPEED, "parallelism.expert=2"), "parallelism.expert: 2, but the model has no experts"),
        (
            (*DEEPSPEED, "cluster.ranks_per_node=4", "parallelism.expert=2", "parallelism.context=2"),
            "parallelism.context: 2 beside expert 2, with engine deepspeed; use one of them",
        ),
        ((*DEEPSPEED, "parallelism.expert_tensor=2"), "parallelism.expert_tensor: 2 with engine deepspeed"),
        ((*DEEPSPEED, "train.recompute=attention"), "train.recompute: attention with engine deepspeed"),
        ((*DEEPSPEED, "parallelism.offload=nvme"), "parallelism.offload: nvme with zero 1; use zero 3, or offload cpu"),
        (
            (*DEEPSPEED, "parallelism.offload=nvme", "parallelism.zero=3"),
            "parallelism.offload_folder: is missing; give a folder on each node's own disk",
        ),
        (
            (*DEEPSPEED, "cluster.ranks_per_node=3", "parallelism.context=3"),
            "3 with engine deepspeed does not share 4 heads and 2 key-value heads out; use one of [1, 2, 4]",
        ),
        (
            (*DEEPSPEED, "cluster.ranks_per_node=8", "parallelism.context=8"),
            "parallelism.context: 8 with engine deepspeed",
        ),
        (("parallelism.context=2",), "tensor 1 x context 2 x pipeline 1 does not divide the world size 1"),
        (("parallelism.tensor=2",), "make the world size a multiple of 2"),
        (("cluster.ranks_per_node=3",), "train.global_batch_size: 4 is not a multiple"),
        (("train.micro_batch_size=3",), "use 3 or 6"),
        (("train.micro_batch_size=8",), "use 8"),
        (("data.sequence_length=65",), "more than the model's max_position_embeddings 64"),
        (
            (
                "cluster.ranks_per_node=2",
                "parallelism.tensor=2",
                "parallelism.sequence=true",
                "data.sequence_length=33",
            ),
            "data.sequence_length: 33 is not a multiple of 2, as parallelism.tensor 2 needs; use 32 or 34, or set",
        ),
    ],
)
def test_impossible_layouts_say_what_would_work(run_file: Path, overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError) as caught:
        layout(run_file, *overrides)
    assert words in str(caught.value)


def moe_layout(run_file: Path, *overrides: str) -> Layout:
    """With eight experts of width 96 in place of the dense feed-forward."""
    config = json.loads(Path(load_run(run_file, []).model).read_text())
    config |= {"model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 96}
    (run_file.parent / "moe.json").write_text(json.dumps(config))
    return layout(run_file, "model=moe.json", *overrides)


@pytest.mark.parametrize(
    ("overrides", "sizes"),
    [
        (("cluster.ranks_per_node=4", "parallelism.expert=4"), (4, 1, 1)),
        (("cluster.ranks_per_node=4", "parallelism.expert=2"), (2, 1, 2)),
        ((*TENSOR2, "parallelism.expert=2"), (2, 1, 1)),  # tensor ranks hold different experts
        ((*TENSOR2, "parallelism.expert_tensor=2"), (1, 2, 1)),
        ((*TENSOR2,), (1, 1, 2)),
    ],
)
def test_possible_layouts_of_experts(run_file: Path, overrides: tuple[str, ...], sizes: tuple[int, int, int]) -> None:
    found = moe_layout(run_file, *overrides)
    assert (found.expert, found.expert_tensor, found.expert_data) == sizes
    held = [found.coordinates(rank) for rank in range(found.world_size)]
    assert len({(place.expert, place.expert_tensor, place.expert_data) for place in held}) == found.world_size


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("parallelism.expert=3",), "parallelism.expert: 3 does not divide the model's number of experts 8"),
        (("parallelism.expert=2",), "expert 2 x expert_tensor 1 does not divide the 1 ranks of a pipeline stage"),
        (("cluster.ranks_per_node=2", "parallelism.expert_tensor=2"), "parallelism.expert_tensor: 2 is neither 1 nor"),
        (("cluster.ranks_per_node=2", "parallelism.tensor=2"), "set parallelism.sequence=true"),
    ],
)
def test_impossible_layouts_of_experts(run_file: Path, overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError) as caught:
        moe_layout(run_file, *overrides)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "override", ["parallelism.expert=2", "parallelism.expert_tensor=2", "train.router.z_loss_coef=0.1"]
)
def test_fields_of_experts_are_refused_for_a_dense_model(run_file: Path, override: str) -> None:
    with pytest.raises(UserError, match=r"but the model has no experts; take the field out"):
        layout(run_file, "cluster.ranks_per_node=2", override)


def test_expert_ranks_run_inside_a_stage() -> None:
    places = [Layout(tensor=2, pipeline=2, data=2, expert=2).coordinates(rank) for rank in range(8)]
    assert [place.expert for place in places] == [0, 1, 0, 1, 0, 1, 0, 1]
    assert [place.expert_data for place in places] == [0, 0, 1, 1, 0, 0, 1, 1]


def test_tensor_ranks_are_neighbours_and_stages_far_apart() -> None:
    places = [Layout(tensor=2, pipeline=2, data=2).coordinates(rank) for rank in range(8)]
    assert [place.tensor for place in places] == [0, 1, 0, 1, 0, 1, 0, 1]
    assert [place.data for place in places] == [0, 0, 1, 1, 0, 0, 1, 1]
    assert [place.pipeline for place in places] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_stages_share_the_layers_in_order() -> None:
    layout = Layout(tensor=1, pipeline=3, data=1)
    assert [list(layout.layers_of(stage, 6)) for stage in range(3)] == [[0, 1], [2, 3], [4, 5]]


def test_layers_of_stages_that_are_not_alike() -> None:
    even = Layout(tensor=1, pipeline=2, data=1, virtual_pipeline=2)
    assert [even.chunks_of(stage, 8) for stage in (0, 1)] == [
        [range(2), range(4, 6)],
        [range(2, 4), range(6, 8)],
    ]
    given = Layout(tensor=1, pipeline=2, data=1, virtual_pipeline=2, chunk_layers=(1, 3, 2, 2))
    assert [given.chunks_of(stage, 8) for stage in (0, 1)] == [
        [range(1), range(4, 6)],
        [range(1, 4), range(6, 8)],
    ]
