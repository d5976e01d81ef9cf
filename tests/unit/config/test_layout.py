"""Which layouts are possible, and where each rank sits."""

import json
from pathlib import Path

import pytest

from trainwright.config.layout import Layout
from trainwright.config.layout_rules import layout_of
from trainwright.config.loading import load_run
from trainwright.config.model_reader import read_model

TENSOR2 = ("cluster.ranks_per_node=2", "parallelism.tensor=2", "parallelism.sequence=true")


def layout(run_file: Path, *overrides: str) -> Layout:
    run = load_run(run_file, overrides)
    return layout_of(run, read_model(Path(run.model)))


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
