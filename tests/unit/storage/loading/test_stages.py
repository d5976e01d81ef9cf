"""Mixtures whose weights change: quotas in each stage, sources that go on, and what another attempt may change."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainwright.config.data import DataConfig
from trainwright.config.errors import UserError
from trainwright.storage.loading.mixture import MAX_PERIOD, Mixture
from trainwright.storage.loading.stages import Stages, change_of, require_same_past
from trainwright.storage.loading.training_data import TrainingData

Make = Callable[..., Path]
DOCS = Path(__file__).parents[4] / "docs" / "data-order.md"
WEB_AND_CODE = [{"store": "a/web.zarr", "weight": 8}, {"name": "code", "store": "b.zarr", "weight": 2}]


def config(stages: list[dict[str, Any]], train: list[dict[str, Any]] = WEB_AND_CODE, **fields: Any) -> DataConfig:
    return DataConfig.model_validate({"train": train, "sequence_length": 32, "stages": stages, **fields})


def random_stages(rng: random.Random) -> list[tuple[int, list[int]]]:
    """One to six stages of up to 300 positions over one to six sources, some of which have no share in some."""
    num_sources, stages, first = rng.randrange(1, 7), [], 0
    for _ in range(rng.randrange(1, 7)):
        quotas = [rng.choice((0, rng.randrange(1, 60))) for _ in range(num_sources)]
        quotas[rng.randrange(num_sources)] += 1
        stages.append((first, quotas))
        first += rng.randrange(1, 300)
    return stages


def test_shares_are_exact_in_each_stage_and_sources_go_on(rng: random.Random) -> None:
    for _ in range(30):
        given = random_stages(rng)
        total = given[-1][0] + 500
        stages = Stages(given)
        sources, places = stages.locate(np.arange(total))
        ends = [first for first, _ in given[1:]] + [total]
        error = np.zeros(len(given[0][1]))
        for number, ((first, quotas), end) in enumerate(zip(given, ends, strict=True)):
            inside = sources[first:end, None] == np.arange(len(quotas))
            ideal = np.arange(1, end - first + 1)[:, None] * np.array(quotas) / sum(quotas)
            found = np.cumsum(inside, axis=0)
            assert np.abs(found - ideal).max() < 1
            assert np.abs(error + found - ideal).max() < number + 1, "the bound that the docs give for the whole"
            assert not found[:, np.array(quotas) == 0].any()
            assert np.array_equal(stages.counts(total)[number], found[-1])
            error += (found - ideal)[-1]
        for source in range(len(error)):
            own = places[sources == source]
            assert np.array_equal(own, np.arange(len(own))), "no gap and nothing twice across the stages"


def test_any_position_is_looked_up_alone(rng: random.Random) -> None:
    given = random_stages(rng)
    total = given[-1][0] + 300
    stages = Stages(given)
    sources, places = stages.locate(np.arange(total))
    for position in [0, total - 1, *(first for first, _ in given), *rng.sample(range(total), 50)]:
        source, place = Stages(given).locate(np.array([position]))
        assert (source[0], place[0]) == (sources[position], places[position])
        before = stages.counts(position).sum(0)
        assert place[0] == before[source[0]], "its place is how many its source had before"
    far = np.array([10**12])
    assert stages.counts(10**12).sum(0)[stages.locate(far)[0][0]] == stages.locate(far)[1][0]


def test_without_stages_the_order_is_the_mixtures() -> None:
    positions = np.arange(1000)
    for one, other in zip(Stages.of(config([])).locate(positions), Mixture([4, 1]).locate(positions), strict=True):
        assert np.array_equal(one, other)


def test_the_published_values() -> None:
    """The table of docs/data-order.md, and the run file above it."""
    text = DOCS.read_text()
    rows = re.findall(r"^\| (\d+) to (\d+) \| (\d) \| ([\d, ]+) \| ([\d, ]+) \|$", text, re.MULTILINE)
    assert [int(row[0]) for row in rows] == [0, 12, 17]
    data = config(
        [{"until_tokens": 380, "weights": {"web": 8, "code": 2}}, {"until_tokens": 544, "weights": {"code": 1}}, {}],
        [{"store": "web.zarr"}, {"store": "code.zarr"}],
    )
    for first, last, stage, sources, places in rows:
        positions = np.arange(int(first), int(last) + 1)
        found = Stages.of(data).locate(positions)
        assert found[0].tolist() == [int(value) for value in sources.split(",")]
        assert found[1].tolist() == [int(value) for value in places.split(",")]
        assert set(Stages.of(data).stages_of(positions).tolist()) == {int(stage)}


def test_weights_and_boundaries_of_a_run_file() -> None:
    """Boundaries are rounded up; the weights of data.train hold where a stage gives none; absent is no share."""
    data = config([{"until_tokens": 65}, {"until_tokens": 2e6, "weights": {"code": 1}}, {"weights": {"web": 1}}])
    assert [dict(stage) for stage in Stages.of(data).record()] == [
        {"first": 0, "quotas": [4, 1]},
        {"first": 3, "quotas": [0, 1]},
        {"first": 62500, "quotas": [1, 0]},
    ]
    small = config([{"until_tokens": 65}, {"weights": {"web": 1, "code": 1e-9}}])
    with pytest.raises(UserError, match=r"^data\.stages\.1\.weights\.code: 1e-09 is less than 1 in 65536"):
        Stages.of(small)


@pytest.mark.parametrize("stages", [[], [(1, [1])], [(0, [1]), (0, [2])], [(0, [1]), (9, [2]), (4, [1])]])
def test_impossible_stages_are_refused(stages: list[tuple[int, list[int]]]) -> None:
    with pytest.raises(ValueError, match="stages begin at"):
        Stages(stages)


def test_many_stages_share_equal_patterns() -> None:
    long = [1, MAX_PERIOD - 1]
    stages = Stages([(number, long) for number in range(100)])
    assert len({id(mixture) for mixture in stages._mixtures}) == 1


A, B = [4, 1], [1, 1]


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ([(0, A)], [(0, A)], None),
        ([(0, A)], [(0, B)], 0),
        ([(0, A)], [(0, A), (50, B)], 50),
        ([(0, A), (50, B)], [(0, A)], 50),
        ([(0, A), (50, B)], [(0, A), (70, B)], 50),
        ([(0, A), (50, B)], [(0, A), (30, B)], 30),
        ([(0, A), (50, B), (90, A)], [(0, A), (50, B), (90, B)], 90),
    ],
)
def test_what_another_attempt_changes(
    old: list[tuple[int, list[int]]], new: list[tuple[int, list[int]]], change: int | None
) -> None:
    before, after = Stages(old).record(), Stages(new).record()
    assert change_of(before, after) == change
    assert require_same_past(before, after, change or 0, 32) == change
    if change is None:
        return
    for one, other in zip(Stages(old).locate(np.arange(change)), Stages(new).locate(np.arange(change)), strict=True):
        assert np.array_equal(one, other)
    with pytest.raises(UserError, match=rf"^data\.stages: .* {(change + 1) * 32:,} tokens .* from {change * 32:,} on"):
        require_same_past(before, after, change + 1, 32)


def test_training_reads_each_store_once_before_anything_again(make_store: Make, tmp_path: Path) -> None:
    """Across the stages; and what `data order --explain` says of each position."""
    web = make_store("web.zarr")
    code = make_store("code.zarr", source=tmp_path / "text" / "part1", tokenizer=web / "tokenizer")
    sources = [{"store": str(web)}, {"store": str(code)}]
    weights = [{"web": 3, "code": 1}, {"code": 1}, {"web": 1}, {"web": 1, "code": 1}]
    ends = [{"until_tokens": tokens} for tokens in (1500, 2000, 2600)]
    stages = [{**end, "weights": weight} for end, weight in zip([*ends, {}], weights, strict=True)]
    data = TrainingData.open(config(stages, sources))
    sizes = {
        label: TrainingData.open(config([], [source])).num_samples
        for label, source in zip(("web", "code"), sources, strict=True)
    }
    origins = data.explain(0, 3 * data.num_samples)
    assert {origin.stage for origin in origins} == {0, 1, 2, 3}
    for label, size in sizes.items():
        mine = [origin for origin in origins if origin.source == label]
        assert len(mine) > 1.4 * size
        assert [origin.epoch for origin in mine] == [place // size for place in range(len(mine))]
        for epoch in range(len(mine) // size):
            assert sorted(origin.sample for origin in mine[epoch * size : (epoch + 1) * size]) == list(range(size))
    firsts = [next(origin.position for origin in origins if origin.stage == stage) for stage in range(4)]
    assert firsts == [0, 47, 63, 82]
    assert data.order_record["stages"][2] == {"first": 63, "quotas": [1, 0]}
