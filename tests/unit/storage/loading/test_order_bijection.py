"""The data order holds every sample once in every epoch: each size by itself, and the largest by its inverse.

`make test-order` runs the whole of it; `make test` a part that takes seconds.
"""

import os

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainwright.storage.loading.order import Order

from .inverse_order import InverseOrder

WHOLE = os.environ.get("WHOLE_MATRIX") == "1"
LIMIT = 1 << 48
SEED = 20_261_124
PRIMES = (2003, 4093, 8191, 9973, 16381, 32749, 65521, 65537, 99991, 131071, 262139, 524287, 999983)
POWERS = tuple((1 << exponent) + step for exponent in range(11, 20) for step in (-1, 0, 1))
SQUARES = tuple(root * root + step for root in (45, 64, 100, 255, 256, 511, 997, 1000) for step in (-1, 0, 1))
OBLONGS = tuple(root * (root + 1) + step for root in (45, 127, 256, 999) for step in (-1, 0, 1))
BLOCKS = (2047 * 64 + 1, 2048 * 64 + 63, 10_000 * 64 - 1, 10**6 - 1, 10**6)
AWKWARD = tuple(sorted({size for size in (*PRIMES, *POWERS, *SQUARES, *OBLONGS, *BLOCKS) if size <= 10**6}))
WINDOWS = (None, 1, 16, 17, 31, 64, 100, 1000, 1024, 1025, 4096, 100_003)


def is_bijection(order: Order, epoch: int) -> bool:
    """Whether an epoch holds each of 0..num_samples-1 once."""
    samples = order.samples(np.arange(order.num_samples) + epoch * order.num_samples)
    if samples.min() < 0 or samples.max() >= order.num_samples:
        return False
    return bool((np.bincount(samples, minlength=order.num_samples) == 1).all())


def windows_of(size: int, windows: tuple[int | None, ...] = WINDOWS) -> list[int | None]:
    """Windows that differ for a store of this size, and those that end just inside it and just outside."""
    near = {size // 2, size // 2 + 1, size - 1} - {0} if size > 2 else set[int]()
    return [None, *sorted({window for window in windows if window and window < size} | near)]


def check_sizes(sizes: range | tuple[int, ...], windows: tuple[int | None, ...] = WINDOWS) -> int:
    """Number of orders that were gone through from one end to the other."""
    count = 0
    for size in sizes:
        for window in windows_of(size, windows):
            for epoch in (0, 1 + size % 7) if size < 200_000 else (size % 7,):
                assert is_bijection(Order(size, SEED + size, window), epoch), (size, window, epoch)
                count += 1
    return count


def test_every_small_size() -> None:
    sizes = range(1, 2001 if WHOLE else 121)
    print(f"bijection: {check_sizes(sizes):,} epochs of every size up to {sizes[-1]:,}, {len(WINDOWS) + 3} windows")


def test_every_small_size_in_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainwright.storage.loading.order._order", None)
    sizes = range(1, 301 if WHOLE else 31)
    print(f"bijection: {check_sizes(sizes):,} epochs of every size up to {sizes[-1]:,}, by NumPy")


@pytest.mark.parametrize("part", range(8))
def test_awkward_sizes(part: int) -> None:
    """Primes, powers of two and their neighbours, squares and oblongs, ends of blocks, up to a million."""
    sizes = AWKWARD[part::8]
    if not WHOLE:
        sizes = tuple(size for size in sizes if size < 20_000)
    count = check_sizes(sizes, WINDOWS if WHOLE else (None, 1, 64, 1025))
    print(f"bijection: {count:,} epochs of {len(sizes)} awkward sizes up to {max(sizes):,}")


@settings(derandomize=True, deadline=None, max_examples=2000 if WHOLE else 200)
@given(
    size=st.one_of(st.integers(1, 5000), st.integers(1, LIMIT - 1)),
    window=st.one_of(st.none(), st.integers(1, 70), st.integers(1, LIMIT)),
    seed=st.integers(0, (1 << 63) - 1),
    epoch=st.integers(0, 1000),
    places=st.lists(st.integers(0, LIMIT), min_size=1, max_size=30),
)
@example(size=LIMIT - 1, window=None, seed=0, epoch=0, places=[0, LIMIT - 2])
@example(size=65, window=1024, seed=1, epoch=7, places=[64])
def test_the_inverse_finds_every_position(
    size: int, window: int | None, seed: int, epoch: int, places: list[int]
) -> None:
    positions = np.array(places) % size + epoch * size
    samples = Order(size, seed, window).samples(positions)
    assert samples.min() >= 0
    assert samples.max() < size
    assert np.array_equal(InverseOrder(size, seed, window, epoch).positions(samples), positions)


LARGE = (10**6 + 3, (1 << 31) - 1, (1 << 32) + 1, 10**10, 10**12, (1 << 47) + 12345, LIMIT - 1)


@pytest.mark.parametrize("size", LARGE)
@pytest.mark.parametrize("window", [None, 1000, 65_536])
def test_large_sizes_by_sampling(size: int, window: int | None) -> None:
    """No sample twice among sampled positions, and the inverse leads back: from positions, and from samples."""
    count, seed = 10**6 if WHOLE else 5000, SEED + size
    positions = np.unique(np.random.default_rng(size).integers(0, size, count))
    samples = Order(size, seed, window).samples(positions)
    assert len(np.unique(samples)) == len(positions)
    assert (int(samples.min()) >= 0, int(samples.max()) < size) == (True, True)
    inverse = InverseOrder(size, seed, window, 0)
    some = slice(None, None, 10 if WHOLE else 1)
    assert np.array_equal(inverse.positions(samples[some]), positions[some])
    assert np.array_equal(Order(size, seed, window).samples(inverse.positions(positions[some])), positions[some])
    back = len(positions[some])
    print(f"bijection: {len(positions):,} positions of {size:,} samples, window {window}; {back:,} there and back")


@pytest.mark.parametrize("size", LARGE)
def test_whole_windows_of_large_sizes(size: int) -> None:
    """Every position of some windows: whole blocks, each sample of them once."""
    window = 1 << 18 if WHOLE else 1 << 13
    order = Order(size, SEED, window)
    for number in np.linspace(0, size // window - 1, 4 if WHOLE else 2, dtype=np.int64).tolist():
        samples = order.samples(np.arange(number * window, (number + 1) * window))
        assert len(np.unique(samples)) == window
        counts = np.unique(samples // 64, return_counts=True)[1]
        assert counts[counts < 64].sum() <= 64, (
            "the store's last block is short, and what it lacks comes from elsewhere"
        )
    print(f"bijection: whole windows of {window:,} among {size:,} samples")
