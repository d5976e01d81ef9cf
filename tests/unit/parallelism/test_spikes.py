"""The rolling sigma rule: what is a spike, what is not, and what the window holds."""

import math
import random
import statistics

import pytest

from trainwright.parallelism.spikes import RollingSigma, Spikes


def test_the_limit_is_mean_and_deviation_of_the_last_values() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    draw, series, values = random.Random(seed), RollingSigma(4.0, 16), list[float]()
    for _ in range(200):
        last = values[-16:]
        expected = statistics.fmean(last) + 4 * statistics.pstdev(last) if len(last) >= 8 else math.inf
        assert series.limit() == pytest.approx(expected, rel=1e-12)
        values.append(draw.gauss(3.0, 0.2))
        series.add(values[-1])


def test_a_flat_curve_has_no_spikes() -> None:
    series = RollingSigma(6.0, 8)
    for _ in range(8):
        series.add(2.0)
    assert series.limit() == pytest.approx(2.06)


def test_false_alarms_on_an_ordinary_curve() -> None:
    """A noisy curve that falls: at six deviations none of 5,000 steps is a spike, and every real one is."""
    draw = random.Random(3)
    spikes, alarms, missed = Spikes(6.0, 128), 0, 0
    for step in range(5_000):
        loss = 2.0 + 6.0 / (1 + step / 300) + draw.gauss(0, 0.05)
        norm = math.exp(draw.gauss(0, 0.15))
        if step % 1000 == 999:
            missed += not spikes.words(loss + 1.0, norm)
            missed += not spikes.words(loss, 12 * norm)
            continue
        alarms += bool(spikes.words(loss, norm))
        spikes.add(loss, norm)
    assert (alarms, missed) == (0, 0)


def test_words_and_history() -> None:
    spikes = Spikes(5.0, 8, [(2.0 + 0.01 * (n % 2), 1.0) for n in range(8)])
    assert spikes.words(2.0, 1.0) == ""
    assert spikes.words(3.0, 1.0).startswith("loss 3 is above 2.0")
    assert spikes.words(2.0, 9.0).startswith("gradient norm 9 is above 1.0")
    assert Spikes(5.0, 8, [(2.0, 1.0)] * 3).words(1e9, 1e9) == "", "too few steps to say"
