"""Which ranks are called slow."""

import pytest

from trainwright.parallelism.timing import RankTimes, stragglers


def times(rank: int, **changed: float | None) -> RankTimes:
    values = {"step_s": 1.0, "data_s": 0.0, "waiting_s": 0.5, "tflops": 1.0} | changed
    return RankTimes(rank=rank, host=f"n{rank}", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"waiting_s": 0.05}, "computes 0.950 s of each step, the median rank 0.500 s"),
        ({"data_s": 0.4}, "waits for its data 0.400 s of each step"),
        ({"tflops": 0.5}, "multiplies matrices at 0.5 Tflop/s, the median rank at 1"),
    ],
)
def test_one_is_slow(changed: dict[str, float], words: str) -> None:
    ranks = [*(times(rank) for rank in range(3)), times(3, **changed)]
    [(told, who)] = stragglers(ranks, 1.5)
    assert who.rank == 3
    assert words in told


def test_all_alike() -> None:
    assert stragglers([times(rank, waiting_s=0.5 + 0.01 * rank) for rank in range(8)], 1.5) == []


def test_on_gpus_the_product_counts() -> None:
    ranks = [times(rank, waiting_s=None, tflops=700.0 - 400.0 * (rank == 2)) for rank in range(4)]
    assert [who.rank for _, who in stragglers(ranks, 1.5)] == [2]


def test_small_differences_are_no_news() -> None:
    ranks = [times(rank, step_s=0.01, waiting_s=0.009 - 0.005 * (rank == 1)) for rank in range(4)]
    assert stragglers(ranks, 1.5) == []
