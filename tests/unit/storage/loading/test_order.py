"""The data order: bijective, uniform, and the function that docs/data-order.md publishes."""

import importlib.util
import itertools
import math
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from trainwright.storage.loading.order import ORDER_VERSION, Order

DOCS = Path(__file__).parents[4] / "docs" / "data-order.md"
MASK = (1 << 64) - 1


@pytest.fixture(autouse=True, params=["compiled", "numpy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test with the compiled order, which must be there, and with NumPy's."""
    assert importlib.util.find_spec("trainwright.storage.loading._order"), "install again: no C compiler was found"
    if request.param == "numpy":
        monkeypatch.setattr("trainwright.storage.loading.order._order", None)


@pytest.mark.parametrize("window", [None, 1, 7, 64, 200, 5000])
def test_every_epoch_holds_every_sample_once(window: int | None) -> None:
    for num_samples in [*range(1, 40), 127, 257, 4097]:
        order = Order(num_samples, 1234, window)
        for epoch in (0, 1_000_003):
            samples = order.samples(np.arange(num_samples, dtype=np.int64) + epoch * num_samples)
            assert np.array_equal(np.sort(samples), np.arange(num_samples)), (num_samples, window, epoch)


def test_published_vectors() -> None:
    text = DOCS.read_text()
    assert f"# The data order, version {ORDER_VERSION}\n" in text
    rows = re.findall(r"^\| (\d+) \| (\w+) \| ([\d, ]+) \|$", text, re.MULTILINE)
    assert len(rows) == 3
    for num_samples, window, values in rows:
        order = Order(int(num_samples), 1234, None if window == "all" else int(window))
        assert order.samples(np.arange(10)).tolist() == [int(value) for value in values.split(",")]


def mix(word: int) -> int:
    word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ word >> 27) * 0x94D049BB133111EB) & MASK
    return word ^ word >> 31


def absorb(key: int, word: int) -> int:
    return mix(key ^ mix((word + 0x9E3779B97F4A7C15) & MASK))


def permute(value: int, size: int, key: int) -> int:
    rows = math.isqrt(size - 1) + 1
    columns = -(-size // rows)
    while True:
        row, column = divmod(value, columns)
        for turn in range(8):
            if turn % 2 == 0:
                row = (row + mix(column ^ absorb(key, turn)) % rows) % rows
            else:
                column = (column + mix(row ^ absorb(key, turn)) % columns) % columns
        value = row * columns + column
        if value < size:
            return value


def written_out(num_samples: int, seed: int, window: int | None, position: int) -> int:
    """docs/data-order.md step by step, in plain integers."""
    window = min(window or num_samples, num_samples)
    block = min(64, max(1, window // 16))
    blocks, span = -(-num_samples // block), block * -(-window // block)
    epoch, place = divmod(position, num_samples)
    key = absorb(absorb(absorb(0, seed), 1), epoch)
    while True:
        number = place // span
        size = min(span, blocks * block - number * span)
        inside = number * span + permute(place - number * span, size, absorb(absorb(key, 2), number))
        place = permute(inside // block, blocks, absorb(key, 1)) * block + inside % block
        if place < num_samples:
            return place


def test_the_words_of_the_docs_give_the_same_order(rng: random.Random) -> None:
    for _ in range(60):
        num_samples = rng.choice([rng.randrange(1, 50), rng.randrange(1, 10**5), rng.randrange(1, 1 << 48)])
        window = rng.choice([None, rng.randrange(1, 2 * num_samples + 1), rng.randrange(1, 300)])
        seed = rng.randrange(1 << 63)
        positions = [rng.randrange(10 * num_samples) for _ in range(20)]
        expected = [written_out(num_samples, seed, window, position) for position in positions]
        assert Order(num_samples, seed, window).samples(np.array(positions)).tolist() == expected


def test_how_positions_are_asked_for_does_not_matter(rng: random.Random) -> None:
    order = Order(997, rng.randrange(1 << 63))
    whole = order.samples(np.arange(3000))
    pieces = [order.samples(np.arange(start, min(start + 7, 3000))) for start in range(0, 3000, 7)]
    assert np.array_equal(whole, np.concatenate(pieces))
    assert np.array_equal(whole.reshape(100, 30), order.samples(np.arange(3000).reshape(100, 30)))


@pytest.mark.parametrize("num_samples", [2, 3, 4, 5, 6])
def test_every_permutation_is_equally_likely(num_samples: int) -> None:
    """Chi-square over the epochs of a fixed seed, so that the verdict never changes."""
    epochs = 40_000
    rows = Order(num_samples, 99).samples(np.arange(num_samples * epochs)).reshape(epochs, num_samples)
    counts = Counter(map(tuple, rows.tolist()))
    expected = epochs / math.factorial(num_samples)
    permutations = itertools.permutations(range(num_samples))
    chi_square = sum((counts[permutation] - expected) ** 2 / expected for permutation in permutations)
    freedom = math.factorial(num_samples) - 1
    assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("num_samples", [31, 257])
def test_every_sample_is_equally_likely_at_every_position(num_samples: int) -> None:
    epochs = 4000
    rows = Order(num_samples, 7).samples(np.arange(num_samples * epochs)).reshape(epochs, num_samples)
    expected = epochs / num_samples
    for position in range(num_samples):
        counts = np.bincount(rows[:, position], minlength=num_samples)
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert abs(chi_square - num_samples + 1) < 6 * math.sqrt(2 * num_samples), position


def test_a_window_draws_from_few_blocks() -> None:
    """1000 samples in windows of 200: 17 blocks of 12, against all of the store without a window."""
    inside = np.unique(Order(1000, 5, 200).samples(np.arange(200)) // 12)
    assert len(inside) <= 18
    assert inside.max() - inside.min() > 40, "the blocks come from all over the store"
    assert len(np.unique(Order(1000, 5).samples(np.arange(200)) // 12)) > 60


def test_seeds_and_epochs_differ() -> None:
    first = Order(1000, 1).samples(np.arange(2000))
    assert not np.array_equal(first[:1000], first[1000:])
    assert not np.array_equal(first[:1000], Order(1000, 2).samples(np.arange(1000)))


@pytest.mark.parametrize(
    ("num_samples", "seed", "window"), [(0, 1, None), (1 << 48, 1, None), (5, -1, None), (5, 1, 0)]
)
def test_impossible_orders_are_refused(num_samples: int, seed: int, window: int | None) -> None:
    with pytest.raises(ValueError, match=r"num_samples|seed"):
        Order(num_samples, seed, window)


def test_positions_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="-3"):
        Order(10, 1).samples(np.array([4, -3]))
