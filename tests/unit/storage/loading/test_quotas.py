"""Quotas are exact at every prefix, in whole numbers: of any weights, in one mixture and in stages."""

import os
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainwright.config.data import DataConfig
from trainwright.config.errors import UserError
from trainwright.storage.loading.mixture import MAX_PERIOD, Mixture, quotas_of
from trainwright.storage.loading.stages import Stages

WHOLE = os.environ.get("WHOLE_MATRIX") == "1"
often = settings(derandomize=True, deadline=None, max_examples=1000 if WHOLE else 80)
weight = st.one_of(st.integers(1, 100).map(float), st.decimals("0.001", "99", places=3).map(float))
short_weight = st.one_of(st.integers(1, 12).map(float), st.decimals("0.1", "3", places=1).map(float))
quota = st.one_of(st.integers(1, 9), st.integers(1, 3000))
LONGEST = 40_000 if WHOLE else 12_000


Counts = NDArray[np.int64]


def errors(quotas: list[int], sources: Counts) -> Counts:
    """Q times what each source has had too much after each position, int64 [positions, sources]: exact."""
    found = np.cumsum(sources[:, None] == np.arange(len(quotas)), axis=0, dtype=np.int64)
    positions = np.arange(1, len(sources) + 1)[:, None]
    result: Counts = found * sum(quotas) - positions * np.array(quotas)
    return result


@often
@given(weights=st.lists(weight, min_size=1, max_size=12))
def test_quotas_have_the_ratio_of_the_weights(weights: list[float]) -> None:
    whole = sum(Fraction(str(value)) for value in weights)
    exact = [Fraction(str(value)) / whole for value in weights]
    try:
        quotas = quotas_of(weights)
    except UserError:
        assert min(exact) < Fraction(1, MAX_PERIOD), "only a smaller share is refused"
        return
    found = [Fraction(count, sum(quotas)) for count in quotas]
    if sum(quotas) < MAX_PERIOD:
        assert found == exact
    assert max(abs(one - other) for one, other in zip(found, exact, strict=True)) < Fraction(1, MAX_PERIOD)


@often
@given(quotas=st.lists(quota, min_size=1, max_size=12), turns=st.integers(0, 3))
def test_every_prefix_is_within_one_of_its_share(quotas: list[int], turns: int) -> None:
    total = sum(quotas)
    first = turns * 1_000_003 * total
    sources, places = Mixture(quotas).locate(np.arange(first, first + min(2 * total + 3, LONGEST)))
    assert np.abs(errors(quotas, sources)).max() < total
    for source, share in enumerate(quotas):
        own = places[sources == source]
        assert np.array_equal(own, first // total * share + np.arange(len(own))), "no gap, nothing twice"


@st.composite
def schedules(draw: st.DrawFn) -> DataConfig:
    """Up to 5 stores, up to 6 stages with a weight of 0 here and there; the last stage gives every store a share."""
    stores = draw(st.integers(1, 5))
    names = [f"s{number}" for number in range(stores)]
    lengths = draw(st.lists(st.integers(1, 400), max_size=5))
    ends = np.cumsum(lengths).tolist()
    stages = []
    for end in ends:
        weights = draw(st.lists(st.one_of(st.just(0.0), short_weight), min_size=stores, max_size=stores).filter(any))
        rest = draw(st.integers(0, 15))
        stages.append({"until_tokens": 16 * end - rest, "weights": dict(zip(names, weights, strict=True))})
    stages.append({"weights": dict.fromkeys(names, 1.0)})
    sources = [{"store": f"/stores/{name}.zarr"} for name in names]
    return DataConfig.model_validate({"train": sources, "sequence_length": 16, "stages": stages})


@often
@given(data=schedules(), beyond=st.integers(1, 300))
def test_every_prefix_of_every_stage(data: DataConfig, beyond: int) -> None:
    stages = Stages.of(data)
    firsts = data.stage_firsts
    ends = [*firsts[1:], firsts[-1] + beyond]
    sources, places = stages.locate(np.arange(ends[-1]))
    carried = [Fraction(0)] * len(data.train)
    for number, (record, end) in enumerate(zip(stages.record(), ends, strict=True)):
        quotas = record["quotas"]
        found = errors(quotas, sources[record["first"] : end])
        assert np.abs(found).max() < sum(quotas)
        for source, before in enumerate(carried):
            worst = max(abs(before + Fraction(int(error), sum(quotas))) for error in set(found[:, source].tolist()))
            assert worst < number + 1
            carried[source] = before + Fraction(int(found[-1, source]), sum(quotas))
    for source in range(len(data.train)):
        own = places[sources == source]
        assert np.array_equal(own, np.arange(len(own))), "a source goes on where it was, from stage to stage"
    assert np.array_equal(stages.counts(ends[-1]).sum(0), np.bincount(sources, minlength=len(data.train)))
