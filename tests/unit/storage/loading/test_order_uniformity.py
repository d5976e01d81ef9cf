"""The data order looks random: chi-squared over positions and samples, pairs and epochs, for several seeds and windows.

Seeds are fixed, so a verdict never changes. Limits are those that a chi-squared variable breaks with a probability of
1e-13 (Laurent and Massart's bounds); there are fewer than a thousand tables, so a right order fails below 1e-9.
"""

import math
import os

import numpy as np
import pytest
from numpy.typing import NDArray

from trainwright.storage.loading.order import Order

WHOLE = os.environ.get("WHOLE_MATRIX") == "1"
SEEDS = tuple(range(1, 33)) if WHOLE else (1, 2)
SIZES = (50_021, 65_536, 99_991) if WHOLE else (50_021,)
BINS = 32
_LIMIT = -math.log(1e-13)


def check(what: str, table: NDArray[np.int64]) -> None:
    """Whether rows and columns of a table of counts [rows, columns] are independent."""
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    assert expected.min() >= 20, "chi-squared needs larger counts"
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    found = float(((table - expected) ** 2 / expected).sum())
    spread = 2 * math.sqrt(freedom * _LIMIT)
    sigmas = (found - freedom) / math.sqrt(2 * freedom)
    print(f"uniformity: {what}: chi-squared {found:.0f}, {freedom} degrees, {sigmas:+.1f} sigma")
    assert freedom - spread < found < freedom + spread + 2 * _LIMIT, what


def table_of(rows: NDArray[np.int64], columns: NDArray[np.int64], num_rows: int, num_columns: int) -> NDArray[np.int64]:
    """Counts of pairs, int64 [num_rows, num_columns]; rows in 0..num_rows-1 and so on."""
    return np.bincount(rows * num_columns + columns, minlength=num_rows * num_columns).reshape(num_rows, num_columns)


def binned(values: NDArray[np.int64], size: int, bins: int = BINS) -> NDArray[np.int64]:
    """Bin of each value of 0..size-1, of equal width."""
    return values * bins // size


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", SIZES)
def test_positions_and_samples_are_independent(size: int, seed: int) -> None:
    """Without a window: where a sample stands says nothing of which it is, nor of the next, nor of the next epoch."""
    positions = np.arange(size)
    order = Order(size, seed)
    samples, again = order.samples(positions), order.samples(positions + size)
    where = f"{size:,} samples, seed {seed}"
    check(f"{where}, position and sample", table_of(binned(positions, size), binned(samples, size), BINS, BINS))
    check(f"{where}, sample and next", table_of(binned(samples[:-1], size), binned(samples[1:], size), BINS, BINS))
    check(f"{where}, sample in two epochs", table_of(binned(samples, size), binned(again, size), BINS, BINS))
    check(f"{where}, low bits", table_of(positions % 32, samples % 32, 32, 32))
    other = Order(size, seed + 1).samples(positions)
    check(f"{where}, next seed", table_of(binned(samples, size), binned(other, size), BINS, BINS))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("window", [1024, 4096])
def test_windows_draw_their_blocks_from_everywhere(window: int, seed: int) -> None:
    """Windows and blocks are independent, and so are a window's positions and the samples within it."""
    num_windows = 256 if window == 1024 else 64
    size = window * num_windows
    samples = Order(size, seed, window).samples(np.arange(size)).reshape(num_windows, window)
    blocks = np.sort(samples // 64, axis=1)[:, ::64]  # each whole block once
    assert np.array_equal(np.sort(blocks.ravel()), np.arange(size // 64))
    bins = 8
    rows = np.repeat(binned(np.arange(num_windows), num_windows, bins), window // 64)
    where = f"windows of {window:,}, seed {seed}"
    check(f"{where}, window and block", table_of(rows, binned(blocks.ravel(), size // 64, bins), bins, bins))
    ranks = np.argsort(np.argsort(samples, axis=1), axis=1)
    places = np.tile(binned(np.arange(window), window), num_windows)
    check(f"{where}, place and sample within", table_of(places, binned(ranks.ravel(), window), BINS, BINS))


@pytest.mark.parametrize("size", [257, 4096, 10_007] if WHOLE else [257])
@pytest.mark.parametrize("window", [None, 64])
def test_each_position_sees_every_sample(size: int, window: int | None) -> None:
    """Over many epochs, and over many seeds: some positions against all samples."""
    turns = 16_384 if WHOLE else 2048
    bins = min(64, size)
    last = size - 1 if window is None else size // window * window - 1  # a short last window sees a short last block
    for place in (0, 1, size // 2, last):
        epochs = Order(size, 7, window).samples(np.arange(turns) * size + place)
        seeds = np.array([Order(size, seed, window).samples(np.array([place]))[0] for seed in range(turns)])
        for what, found in (("epochs", epochs), ("seeds", seeds)):
            counts = np.bincount(binned(found, size, bins), minlength=bins)
            widths = np.bincount(binned(np.arange(size), size, bins), minlength=bins)
            table = np.stack([counts, widths * 10**6])  # the second row stands for the certain shares
            check(f"{size:,} samples, window {window}, position {place} in {turns:,} {what}", table)


def test_the_check_can_fail() -> None:
    """What is no shuffle at all, and what is one of neighbours only, is found."""
    size = SIZES[0]
    positions = np.arange(size)
    near = np.random.default_rng(3).permuted(positions[: size // 100 * 100].reshape(-1, 100), axis=1).ravel()
    for samples in (positions, positions * 7919 % size, near):
        rows = binned(positions[: len(samples)], size)
        with pytest.raises(AssertionError):
            check("no shuffle, position and sample", table_of(rows, binned(samples, size), BINS, BINS))
