"""Who is waited for, told from reports."""

import random

import pytest

from trainwright.launchers.hangs import diagnose
from trainwright.tracking.hang_reports import Entered, HangReport, Waiting, numbers_text, where_in_dump

_ALL = ("default group", [0, 1, 2, 3])
_GROUPS = {
    "0": _ALL,
    "a": ("tensor group", [0, 1]),
    "b": ("tensor group", [2, 3]),
    "c": ("data group", [0, 1]),
    "p:0>2": ("pipeline group", [0, 2]),
}


def _report(
    rank: int, counts: dict[str, list[str]], inside: str = "", silent: dict[int, str] | None = None, where: str = "here"
) -> HangReport:
    """`counts`: operations entered by channel; `inside`: the channel whose last operation the rank is in."""
    waiting = []
    if inside:
        name, ranks = _GROUPS[inside]
        operations = counts[inside]
        waiting = [Waiting(channel=inside, name=name, ranks=ranks, sequence=len(operations), operation=operations[-1])]
    entered = {channel: Entered(count=len(each), recent=each[-8:]) for channel, each in counts.items()}
    return HangReport(
        rank=rank,
        host="n1",
        phase="step",
        step=9,
        idle_s=5.0,
        where=where,
        waiting=waiting,
        entered=entered,
        silent=silent or {},
    )


def _sums(count: int) -> list[str]:
    return ["all_reduce"] * count


def test_a_rank_that_has_not_entered_with_others_that_wait_behind() -> None:
    reports = {
        0: _report(0, {"0": _sums(13), "a": _sums(5)}, "0"),
        1: _report(1, {"0": _sums(13), "a": _sums(5)}, "0"),
        2: _report(2, {"0": _sums(12), "b": _sums(4)}, where="data.next (data.py:7)"),
        3: _report(3, {"0": _sums(12), "b": _sums(5)}, "b"),
    }
    hang = diagnose(reports, {}, {})
    assert hang.ranks == [2]
    assert hang.line == (
        "hang: rank 2 has not entered all_reduce #5 of the tensor group [2, 3] "
        "(rank 3 waits in it, ranks 0, 1 elsewhere); rank 2 is in data.next (data.py:7)"
    )


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("T", "rank 3 does not answer (on n2, it is stopped by a signal)"),
        ("D", "a device or file system that does not answer)"),
        ("R", "it runs, but Python in it does not), in loop (x.py:3)"),
        ("", "its process is gone)"),
        (None, "rank 3 does not answer (on n2)"),
    ],
)
def test_a_rank_without_a_report(state: str | None, words: str) -> None:
    silent = {} if state is None else {3: state}
    reports = {rank: _report(rank, {"0": _sums(4)}, "0", silent) for rank in range(3)}
    hang = diagnose(reports, {3: "n2"}, {3: "loop (x.py:3)" if state == "R" else ""})
    assert hang.ranks == [3]
    assert hang.line.startswith("hang: rank 3 has not entered all_reduce #4 of the default group [0-3] (ranks 0-2 wait")
    assert words in hang.line


def test_different_collectives_even_if_one_of_them_has_been_left() -> None:
    reports = {rank: _report(rank, {"0": [*_sums(3)]}, "0") for rank in (0, 1, 3)}
    reports[2] = _report(2, {"0": [*_sums(2), "broadcast", "all_reduce"]}, "0")
    hang = diagnose(reports, {}, {})
    assert hang.ranks == [2]
    assert (
        "as #3 of the default group [0-3]: ranks 0, 1, 3 all_reduce, rank 2 broadcast; rank 2 is in here" in hang.line
    )


def test_a_message_that_is_not_sent() -> None:
    reports = {0: _report(0, {"p:0>2": ["send"]}), 2: _report(2, {"p:0>2": ["recv", "recv"]}, "p:0>2")}
    hang = diagnose(reports, {}, {})
    assert hang.ranks == [0]
    assert "rank 0 has not entered send/recv #2 from rank 0 to rank 2 of the pipeline group (rank 2 waits" in hang.line


def test_a_circle() -> None:
    reports = {
        0: _report(0, {"a": _sums(2), "c": _sums(1)}, "a"),
        1: _report(1, {"a": _sums(1), "c": _sums(2)}, "c"),
    }
    hang = diagnose(reports, {}, {})
    assert hang.ranks == [0, 1]
    assert "rank 0 for rank 1 in all_reduce #2 of the tensor group [0, 1]" in hang.line


def test_all_are_in_it() -> None:
    hang = diagnose({rank: _report(rank, {"0": _sums(4)}, "0") for rank in range(4)}, {}, {})
    assert hang.ranks == []
    assert hang.line.startswith("hang: all have entered all_reduce #4 of the default group [0-3], and it does not end")


def test_nobody_waits() -> None:
    reports = {rank: _report(rank, {}, where="io.read (io.py:1)") for rank in (0, 1)}
    assert diagnose(reports, {2: "n9"}, {}).line == (
        "hang: no rank is in a collective; ranks 0, 1 are in io.read (io.py:1); rank 2 does not answer (on n9)"
    )
    assert diagnose({}, {}, {}).line.startswith("hang: no rank")


def test_one_of_many_ranks_and_axes_at_random() -> None:
    """A grid of ranks: each sums along its row, then its column, then all; one of them stops somewhere."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    rows, columns = draw.randint(2, 8), draw.randint(2, 8)
    culprit, step = draw.randrange(rows * columns), draw.randint(1, 50)
    reports = _grid(rows, columns, culprit, step)
    silent = {culprit: "n"} if draw.random() < 0.5 else {}
    if silent:
        del reports[culprit]
    hang = diagnose(reports, silent, {})
    assert hang.ranks == [culprit], hang.line
    assert f"has not entered all_reduce #{step} of the row" in hang.line


def _grid(rows: int, columns: int, culprit: int, step: int) -> dict[int, HangReport]:
    """What is reported when `culprit` does not begin its `step`th step."""
    reports = {}
    for rank in range(rows * columns):
        row, column = divmod(rank, columns)
        in_row = [row * columns + each for each in range(columns)]
        in_column = [each * columns + column for each in range(rows)]
        stuck_in_row = row == culprit // columns
        stuck_in_column = not stuck_in_row
        # (channel, ranks, entered before this step, whether it is in it now)
        state = [("row", in_row, True, stuck_in_row), ("column", in_column, not stuck_in_row, stuck_in_column)]
        waiting, entered = [], {}
        for name, ranks, gets_there, inside in state:
            began = gets_there and rank != culprit
            count = step if began else step - 1
            entered[f"{name}{ranks[0]}"] = Entered(count=count, recent=["all_reduce"] * min(count, 8))
            if inside and began:
                waiting.append(
                    Waiting(channel=f"{name}{ranks[0]}", name=name, ranks=ranks, sequence=step, operation="all_reduce")
                )
        reports[rank] = HangReport(
            rank=rank, host="n", phase="step", step=step - 1, idle_s=9.0, where="x", waiting=waiting, entered=entered
        )
    return reports


def test_numbers() -> None:
    assert numbers_text([5, 0, 1, 2, 7, 8]) == "0-2, 5, 7, 8"


def test_the_main_thread_of_a_dump() -> None:
    text = """Timeout (0:00:04)!
Thread 0x01 (most recent call first):
  File "/usr/lib/threading.py", line 5 in wait
Thread 0x02 (most recent call first):
  File "/app/site-packages/torch/cuda/streams.py", line 9 in synchronize
  File "/app/model.py", line 12 in forward
"""
    assert where_in_dump(text) == "forward (model.py:12)"
    assert where_in_dump("") == ""
