"""Readers that need no peer: NumPy memory maps, and token stores through our reader."""

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainwright.storage.tokens.reader import TokenStore

from .settings import BATCH, LENGTH, SEED, WIDTH
from .timing import Work

Read = Callable[[NDArray[np.int64]], Any]
"""Samples by number, int64 [batch] -> [batch, WIDTH] in an array or tensor."""


def memmap(tokens: NDArray[np.uint16], stride: int = LENGTH) -> Read:
    """Slices of a map copied into one new array: the least that Python code does. Sample i begins at i*stride."""

    def read(numbers: NDArray[np.int64]) -> NDArray[np.uint16]:
        out = np.empty((len(numbers), WIDTH), np.uint16)
        for row, number in enumerate(numbers.tolist()):
            out[row] = tokens[number * stride : number * stride + WIDTH]
        return out

    return read


def nanogpt(tokens: NDArray[np.uint16]) -> Read:
    """As nanoGPT's get_batch, but with inputs and targets out of one copy: int64 [batch, WIDTH]."""
    import torch

    def read(numbers: NDArray[np.int64]) -> Any:
        starts = (numbers * LENGTH).tolist()
        return torch.stack([torch.from_numpy(tokens[start : start + WIDTH].astype(np.int64)) for start in starts])

    return read


def nanogpt_twice(tokens: NDArray[np.uint16]) -> Read:
    """As nanoGPT's get_batch is: inputs and targets are each copied and stacked; gives both."""
    import torch

    def stack(starts: list[int]) -> Any:
        return torch.stack([torch.from_numpy(tokens[start : start + LENGTH].astype(np.int64)) for start in starts])

    def read(numbers: NDArray[np.int64]) -> Any:
        starts = (numbers * LENGTH).tolist()
        return stack(starts), stack([start + 1 for start in starts])

    return read


def ours(store: TokenStore, dtype: str = "uint16", *, reuse: bool = False) -> Read:
    """Our reader into a new array, or into the same one each time, as the loader with its pinned memory may."""
    kept = np.empty((BATCH, WIDTH), dtype)

    def read(numbers: NDArray[np.int64]) -> NDArray[Any]:
        out = kept[: len(numbers)] if reuse else np.empty((len(numbers), WIDTH), dtype)
        store.samples_into(numbers, out)
        return out

    return read


def ours_torch(store: TokenStore, dtype: str = "int64", *, reuse: bool = False) -> Read:
    """Our reader, as a torch tensor."""
    import torch

    read_array = ours(store, dtype, reuse=reuse)
    return lambda numbers: torch.from_numpy(read_array(numbers))


def random_batches(num_samples: int) -> NDArray[np.int64]:
    """All samples in random order, cut into whole batches, int64 [batches, BATCH]."""
    order = np.random.default_rng(SEED + 1).permutation(num_samples)
    return order[: num_samples // BATCH * BATCH].reshape(-1, BATCH)


def by_number(read: Read, batches: NDArray[np.int64]) -> Work:
    """Reads batch after batch, round and round, and goes on where it stopped."""
    place = 0

    def work(seconds: float) -> int:
        nonlocal place
        stop, begun = perf_counter() + seconds, place
        while perf_counter() < stop:
            read(batches[place % len(batches)])
            place += 1
        return (place - begun) * BATCH * WIDTH

    return work


def by_iterator(make: Callable[[], Iterator[Any]]) -> Work:
    """Takes batches from an iterator, and from a new one when it ends."""
    current = make()
    next(current)  # a loader's start is measured elsewhere

    def work(seconds: float) -> int:
        nonlocal current
        stop, count = perf_counter() + seconds, 0
        while perf_counter() < stop:
            if next(current, None) is None:
                current = make()
            else:
                count += 1
        return count * BATCH * WIDTH

    return work


def check(read: Read, tokens: NDArray[np.uint16], batches: NDArray[np.int64], stride: int = LENGTH) -> None:
    """Raises AssertionError unless some batches hold the corpus's tokens."""
    for batch in batches[:: max(1, len(batches) // 64)]:
        found = np.asarray(read(batch)).astype(np.int64)
        assert (found == memmap(tokens, stride)(batch)).all(), f"samples {batch} differ from the corpus"
