"""Reading ahead: the next position is read in the background, jumps and errors included."""

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
    while ahead._outcomes.empty():
        time.sleep(0.001)
    now[0] = "after"
    assert [ahead.get(0), ahead.get(1), ahead.get(2)] == ["after 0", "after 1", "after 2"]
    ahead.close()
