"""Reading ahead: the next position is read in the background, jumps and errors included."""

import random
import threading
import time

import pytest

from trainwright.storage.loading.ahead import Ahead


def test_the_next_position_is_read_while_the_caller_works() -> None:
    read: list[tuple[int, int]] = []

    def slow(position: int) -> int:
        time.sleep(0.01)
        read.append((position, threading.get_ident()))
        return position * 2

    ahead = Ahead(slow, 10)
    assert [ahead.get(position) for position in (0, 10, 20, 7, 17)] == [0, 20, 40, 14, 34]
    ahead.close()
    positions = [position for position, _ in read]
    assert positions[:3] == [0, 10, 20]
    assert positions.count(10) == positions.count(20) == positions.count(17) == 1
    by_caller = [position for position, thread in read if thread == threading.get_ident()]
    assert by_caller == [0, 7], "only the first, and the one after a jump, are waited for"


def test_an_error_comes_with_its_position() -> None:
    def read(position: int) -> int:
        if position == 2:
            raise ValueError("sample 2 is bad")
        return position

    ahead = Ahead(read, 1)
    assert [ahead.get(0), ahead.get(1)] == [0, 1]
    with pytest.raises(ValueError, match="sample 2 is bad"):
        ahead.get(2)
    ahead.close()  # position 3 was never asked for
    fine = Ahead(read, 2)
    assert fine.get(0) == 0  # 2 is read ahead and fails
    assert fine.get(1) == 1
    fine.close()


def test_what_was_read_before_a_jump_is_read_again() -> None:
    """A run that leaves a damaged chunk out goes back to a position: what was read ahead is not as it is now."""
    now = ["before"]
    ahead = Ahead(lambda position: f"{now[0]} {position}", 1)
    assert ahead.get(0) == "before 0"
    while ahead._groups.empty():
        time.sleep(0.001)
    now[0] = "after"
    assert [ahead.get(0), ahead.get(1), ahead.get(2)] == ["after 0", "after 1", "after 2"]
    ahead.close()


def test_quick_reads_are_handed_over_in_groups_and_in_order() -> None:
    """Any walk with jumps and bad positions gives what reading one by one gives."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    bad = set(draw.sample(range(0, 3000, 3), 50))
    read: list[int] = []

    def quick(position: int) -> int:
        read.append(position)
        if position in bad:
            raise ValueError(f"sample {position} is bad")
        return position

    ahead, position = Ahead(quick, 3), 0
    for _ in range(1500):
        if position in bad:
            with pytest.raises(ValueError, match=f"sample {position} is bad"):
                ahead.get(position)
        else:
            assert ahead.get(position) == position
        jump = draw.random() < 0.02
        position = 3 * draw.randrange(1000) if jump else (position + 3) % 3000
    ahead.close()
    assert len(read) < 1500 + 16 * (0.1 * 1500), "no more is read for nothing than what is ahead of a jump"


def test_what_is_read_ahead_is_bounded() -> None:
    read: list[int] = []
    ahead = Ahead(lambda position: read.append(position), 1)
    ahead.get(0)
    for position in range(1, 40):
        ahead.get(position)
        time.sleep(0.002)  # the thread has all the time it wants
        assert max(read) <= position + 16
    ahead.close()
    assert read == list(range(len(read)))


def test_a_slow_read_is_not_waited_for_by_its_neighbours() -> None:
    """A batch that takes long is handed over alone: at most one is read beyond what was asked for."""
    read: list[int] = []

    def slow(position: int) -> None:
        time.sleep(0.002)
        read.append(position)

    ahead = Ahead(slow, 1)
    for position in range(10):
        ahead.get(position)
        assert max(read) <= position + 1
    ahead.close()
