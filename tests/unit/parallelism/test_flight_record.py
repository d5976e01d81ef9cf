"""What torch's flight recorder says of NCCL goes before our own record, which only knows what was queued."""

from typing import Any

import pytest

from trainwright.parallelism.flight_record import with_flight_record
from trainwright.tracking.hang_reports import Entered, Waiting

pytestmark = pytest.mark.ranks  # torch is loaded


def _record(backend: str, done: int, queued: int) -> dict[str, Any]:
    """As torch 2.13 writes it, shortened."""
    entries = [
        {
            "process_group": ["1", "TENSOR_MODEL_PARALLEL_GROUP"],
            "collective_seq_id": number,
            "is_p2p": False,
            "profiling_name": f"{backend}:{'all_reduce' if number % 2 else 'broadcast'}",
            "state": "completed" if number <= done else "scheduled",
        }
        for number in range(1, queued + 1)
    ]
    status = {"last_enqueued_collective": queued, "last_started_collective": done, "last_completed_collective": done}
    config = {"1": {"name": "1", "desc": "TENSOR_MODEL_PARALLEL_GROUP", "ranks": "[2, 3]"}}
    return {"entries": entries, "pg_status": {"1": status}, "pg_config": config}


def _entered(count: int) -> dict[str, Entered]:
    return {"1": Entered(count=count, recent=["all_reduce"])}


def test_a_gpu_is_behind_what_was_queued() -> None:
    waiting, entered = with_flight_record(_record("nccl", 6, 9), [], _entered(9))
    assert waiting == [
        Waiting(channel="1", name="tensor model parallel group", ranks=[2, 3], sequence=7, operation="all_reduce")
    ]
    assert entered["1"].count == 9
    assert entered["1"].operation(8) == "broadcast"


def test_nothing_is_behind() -> None:
    assert with_flight_record(_record("nccl", 9, 9), [], _entered(9)) == ([], _entered(9))


def test_gloo_is_not_asked_since_it_never_says_that_something_is_done() -> None:
    assert with_flight_record(_record("gloo", 0, 9), [], _entered(9)) == ([], _entered(9))
    assert with_flight_record({}, [], _entered(9)) == ([], _entered(9))
