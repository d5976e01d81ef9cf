"""Mixtures: exact quotas, and prefixes within one of ideal."""

import random

import numpy as np
import pytest

from trainwright.config.errors import UserError
from trainwright.storage.loading.mixture import MAX_PERIOD, Mixture, quotas_of
from trainwright.storage.loading.order import Order


@pytest.mark.parametrize(
    ("weights", "quotas"),
    [
        ([1.0], [1]),
        ([0.7, 0.3], [7, 3]),
        ([1.0, 2.0, 3.5], [2, 4, 7]),
        ([2.0, 2.0], [1, 1]),
        ([1e-05, 1.0], [1, MAX_PERIOD - 1]),
    ],
)
def test_weights_become_quotas(weights: list[float], quotas: list[int]) -> None:
    assert quotas_of(weights) == quotas


def test_long_decimals_are_rounded_to_the_longest_period() -> None:
    quotas = quotas_of([0.1234567, 0.5, 0.0076543])
    assert sum(quotas) == MAX_PERIOD
    ideal = np.array([0.1234567, 0.5, 0.0076543]) / 0.631111
    assert np.abs(np.array(quotas) - ideal * MAX_PERIOD).max() < 1


@pytest.mark.parametrize("weights", [[], [0.0, 1.0], [-1.0], [float("nan")], [float("inf")], [1e-9, 1.0]])
def test_weights_that_cannot_be_kept_are_refused(weights: list[float]) -> None:
    with pytest.raises(UserError, match=r"data\.train"):
        quotas_of(weights)


def check_prefixes(quotas: list[int], num_positions: int) -> None:
    sources, places = Mixture(quotas).locate(np.arange(num_positions))
    ideal = np.arange(1, num_positions + 1) / sum(quotas)
    for source, quota in enumerate(quotas):
        mine = sources == source
        assert np.abs(np.cumsum(mine) - ideal * quota).max() < 1
        assert np.array_equal(places[mine], np.arange(mine.sum())), "a source's own positions have no gap"


@pytest.mark.parametrize("quotas", [[1], [7, 3], [1] * 50, [65000, 1, 5, 530], [1, 2, 3, 4, 5, 1000]])
def test_prefixes_are_within_one_of_ideal(quotas: list[int]) -> None:
    check_prefixes(quotas, 2 * sum(quotas) + 5)


def test_prefixes_of_random_mixtures(rng: random.Random) -> None:
    for _ in range(20):
        check_prefixes([rng.randrange(1, 200) for _ in range(rng.randrange(1, 12))], 3000)


def test_any_position_is_looked_up_alone() -> None:
    mixture = Mixture([5, 3, 1])
    sources, places = mixture.locate(np.arange(10**9, 10**9 + 100))
    for offset in (0, 37, 99):
        source, place = mixture.locate(np.array([10**9 + offset]))
        assert (source[0], place[0]) == (sources[offset], places[offset])


def test_the_published_pattern() -> None:
    assert Mixture([7, 3]).locate(np.arange(10))[0].tolist() == [0, 0, 1, 0, 0, 1, 0, 0, 0, 1]


def test_the_recorded_samples_of_a_mixture() -> None:
    """Source and sample at the first positions of stores of 1000 and 100 samples, as they have always been."""
    expected = [(0, 442), (0, 8), (1, 44), (0, 28), (0, 291), (1, 34), (0, 939), (0, 227), (0, 48), (1, 21)]
    orders = [Order(1000, 1234), Order(100, 1234)]
    sources, places = Mixture([7, 3]).locate(np.arange(10))
    found = [int(orders[source].samples(places[[row]])[0]) for row, source in enumerate(sources)]
    assert list(zip(sources.tolist(), found, strict=True)) == expected


@pytest.mark.parametrize("quotas", [[], [0, 0], [3, -1]])
def test_impossible_quotas_are_refused(quotas: list[int]) -> None:
    with pytest.raises(ValueError, match="must not be below 0"):
        Mixture(quotas)
