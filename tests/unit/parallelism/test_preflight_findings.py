"""What is wrong with nodes, from records that ranks could give."""

import errno
import random
from dataclasses import replace
from typing import Any

import pytest

from trainwright.config.cluster import ClusterConfig
from trainwright.config.preflight import PreflightConfig
from trainwright.parallelism.preflight_findings import Finding, NodeRecord, RankRecord, Room, find_faults
from trainwright.parallelism.preflight_summary import summarize, words_of

_LIMITS = PreflightConfig()
_ROOM = Room(folder="/runs/x", free_bytes=10**12, checkpoint_bytes=10**9)
_VERSIONS = {"python": "3.11.9", "torch": "2.9.1", "driver": "580.95.05"}
_WELL: dict[str, Any] = {
    "uuid": "GPU-1",
    "lost": False,
    "uncorrected_errors": 0,
    "remap_pending": False,
    "remap_failed": None,
    "slowed": [],
    "clock_mhz": 1980,
    "max_clock_mhz": 1980,
}


def node(**fields: Any) -> NodeRecord:
    healthy = NodeRecord(
        versions=_VERSIONS, write_errno=None, write_error="", ahead_at_least_s=-0.01, ahead_at_most_s=0.01
    )
    return replace(healthy, **fields)


def rank(number: int, host: str, **fields: Any) -> RankRecord:
    healthy = RankRecord(rank=number, host=host, device="", kind="", visible=0, tflops=0.05, product=37058.0)
    return replace(healthy, **fields)


def job(num_nodes: int, *, gpus: int = 0, ranks: int = 2) -> list[RankRecord]:
    """A healthy job: ranks per node, each with a GPU of its own if `gpus`."""
    records = []
    for number in range(num_nodes * ranks):
        host, local = f"n{number // ranks + 1}", number % ranks
        record = rank(number, host, node=node() if local == 0 else None)
        if gpus:
            record = replace(record, device=f"GPU-{number}", kind="H200", visible=gpus, tflops=700.0)
            record = replace(record, gpus=[_WELL | {"uuid": f"GPU-{number}"}]) if local == 0 else record
        records.append(record)
    return records


def with_node(records: list[RankRecord], host: str, **fields: Any) -> list[RankRecord]:
    """The same with other facts about one node."""
    return [
        replace(record, node=replace(record.node, **fields)) if record.node and record.host == host else record
        for record in records
    ]


def with_rank(records: list[RankRecord], number: int, **fields: Any) -> list[RankRecord]:
    """The same with other facts about one rank."""
    return [replace(record, **fields) if record.rank == number else record for record in records]


def faults(
    records: list[RankRecord], limits: PreflightConfig = _LIMITS, gpus: int = 0, tflops: float | None = None
) -> list[Finding]:
    return find_faults(records, _ROOM, limits, ClusterConfig(gpus_per_node=gpus, expected_tflops=tflops))


@pytest.mark.parametrize("gpus", [0, 2])
@pytest.mark.parametrize("num_nodes", [1, 2, 3, 200])
def test_nothing_is_wrong_with_a_healthy_job(num_nodes: int, gpus: int) -> None:
    assert faults(job(num_nodes, gpus=gpus), gpus=gpus) == []


def test_rates_that_swing_a_little_are_not_slow() -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    draw = random.Random(seed)
    records = [replace(record, tflops=draw.uniform(0.55, 1.0)) for record in job(20, gpus=2)]
    assert faults(records, gpus=2) == []


@pytest.mark.parametrize("num_nodes", [2, 3, 4, 9])
@pytest.mark.parametrize("place", [0, 1])
def test_the_slow_node_is_named_however_few_there_are(num_nodes: int, place: int) -> None:
    slow = f"n{place + 1}"
    records = [replace(each, tflops=0.02) if each.host == slow else each for each in job(num_nodes)]
    [found] = faults(records)
    assert (found.host, found.check) == (slow, "speed")
    assert found.words == "it computes 0.02 Tflop/s, and 0.05 is the median"


def test_one_slow_gpu_makes_a_node_slow_but_not_one_slow_process_on_a_cpu() -> None:
    [found] = faults(with_rank(job(1, gpus=2, ranks=4), 3, tflops=100.0), gpus=2)
    assert found.host == "n1"
    assert faults(with_rank(job(2), 3, tflops=0.001)) == []


def test_all_may_be_slow_against_what_is_expected() -> None:
    found = faults(job(2), tflops=0.2)
    assert [each.host for each in found] == ["n1", "n2"]
    assert found[0].words == "it computes 0.05 Tflop/s, and 0.2 is expected"
    assert faults(job(2), tflops=0.09) == []


@pytest.mark.parametrize("fraction", [0.3, 0.9])
def test_the_fraction_is_the_run_files(fraction: float) -> None:
    records = [replace(each, tflops=0.025) if each.host == "n2" else each for each in job(3)]
    assert bool(faults(records, PreflightConfig(slowest_fraction=fraction))) == (fraction > 0.5)


def test_another_version_is_named_with_its_node_and_in_a_draw_the_first_node_counts() -> None:
    other = {**_VERSIONS, "torch": "2.8.0"}
    [found] = faults(with_node(job(2), "n2", versions=other))
    assert found == Finding(host="n2", check="versions", words="torch is 2.8.0, and 2.9.1 on other nodes")
    assert [each.host for each in faults(with_node(job(3), "n1", versions=other))] == ["n1"]


def test_what_a_node_lacks_is_missing_there() -> None:
    [found] = faults(with_node(job(3), "n3", versions={"python": "3.11.9", "torch": "2.9.1"}))
    assert (found.host, found.words) == ("n3", "driver is missing, and 580.95.05 on other nodes")


@pytest.mark.parametrize(("ahead_s", "host", "side"), [(-60, "n3", "behind"), (60, "n3", "ahead")])
def test_a_clock_that_is_wrong(ahead_s: float, host: str, side: str) -> None:
    [found] = faults(with_node(job(3), host, ahead_at_least_s=ahead_s - 0.5, ahead_at_most_s=ahead_s + 0.5))
    assert (found.host, found.check, found.words) == (host, "clock", f"its clock is 59.5 s {side}")


def test_it_may_be_the_first_nodes_clock_by_which_all_others_are_wrong() -> None:
    records = job(4)
    for host in ("n2", "n3", "n4"):
        records = with_node(records, host, ahead_at_least_s=9.9, ahead_at_most_s=10.1)
    assert [each.host for each in faults(records)] == ["n1"]


def test_a_clock_that_is_not_surely_wrong_is_not_named() -> None:
    assert faults(with_node(job(3), "n3", ahead_at_least_s=-1.0, ahead_at_most_s=30.0)) == []


def test_a_full_disk_is_the_users_wherever_it_is_noticed() -> None:
    full = {"write_errno": errno.ENOSPC, "write_error": "No space left on device"}
    [found] = faults(with_node(job(3), "n2", **full))
    assert found == Finding(host="", check="file system", words="could not be written (No space left on device)")


def test_a_node_that_alone_cannot_write_is_at_fault_but_not_if_none_can() -> None:
    stale = {"write_errno": errno.ESTALE, "write_error": "Stale file handle"}
    [found] = faults(with_node(job(3), "n2", **stale))
    assert (found.host, found.words) == ("n2", "/runs/x: Stale file handle")
    [found] = faults(with_node(job(1), "n1", **stale))
    assert found.host == ""


def test_too_little_room_for_a_checkpoint() -> None:
    room = replace(_ROOM, free_bytes=3_100_000_000, checkpoint_bytes=12_000_000_000)
    [found] = find_faults(job(2), room, _LIMITS, ClusterConfig())
    assert (found.host, found.words) == ("", "3.1 GB are free, and a checkpoint takes 12 GB")


@pytest.mark.parametrize(
    ("illness", "words"),
    [
        ({"lost": True}, "is lost"),
        ({"uncorrected_errors": 3}, "3 uncorrected memory errors"),
        ({"remap_pending": True}, "needs a reset"),
        ({"remap_failed": True}, "no spare memory rows"),
        ({"slowed": ["power brake"]}, "is slowed down: power brake"),
    ],
)
def test_an_ill_gpu_is_named(illness: dict[str, Any], words: str) -> None:
    records = with_rank(job(2, gpus=2), 2, gpus=[_WELL, {**_WELL, "uuid": "GPU-7", **illness}])
    [found] = faults(records, gpus=2)
    assert (found.host, found.check) == ("n2", "GPU health")
    assert found.words.startswith("GPU GPU-7 ")
    assert words in found.words


def test_what_a_driver_does_not_tell_is_no_illness() -> None:
    silent = dict.fromkeys(_WELL) | {"uuid": "GPU-0", "lost": False}
    assert faults(with_rank(job(1, gpus=2), 0, gpus=[silent]), gpus=2) == []
    assert faults(with_rank(job(1, gpus=2), 0, gpus=None), gpus=2) == []


def test_a_driver_that_does_not_answer() -> None:
    [found] = faults(with_rank(job(2, gpus=2), 2, gpus_silent="the driver has not answered for 15 s"), gpus=2)
    assert (found.host, found.words) == ("n2", "the driver has not answered for 15 s")


def test_gpus_that_were_allocated_and_are_not_there() -> None:
    records = [replace(each, visible=1) if each.host == "n2" else each for each in job(2, gpus=4)]
    [found] = faults(records, gpus=4)
    assert (found.host, found.words) == ("n2", "2 of 4 allocated GPUs are there")
    records = [replace(each, device="", visible=0, kind="") if each.host == "n2" else each for each in job(3, gpus=2)]
    assert ("n2", "GPUs") in [(each.host, each.check) for each in faults(records, gpus=2)]


def test_one_visible_gpu_per_task_is_all_of_them() -> None:
    records = [replace(each, visible=1) for each in job(2, gpus=2)]
    assert faults(records, gpus=2) == []


def test_no_gpu_anywhere_is_the_users_mistake() -> None:
    [found] = faults(job(2), gpus=8)
    assert (found.host, found.check) == ("", "cluster.gpus_per_node")


def test_a_gpu_that_computes_something_else() -> None:
    [found] = faults(with_rank(job(2, gpus=2), 3, product=37057.0), gpus=2)
    assert (found.host, found.check) == ("n2", "matrix product")
    assert found.words == "GPU GPU-3 gets 37057 where others get 37058 (rank 3)"
    records = [replace(each, product=1.0, kind="A100") if each.host == "n2" else each for each in job(2, gpus=2)]
    assert faults(records, gpus=2) == [], "GPUs of another kind may round otherwise"


def test_the_line_in_the_log() -> None:
    records = with_node(job(2, gpus=2), "n2", ahead_at_least_s=-0.004, ahead_at_most_s=0.006)
    summary = summarize(records, [], 12.5, 41 * 10**9) | {"seconds": 0.061}
    assert words_of(summary) == (
        "preflight in 0.06 s: 2 nodes, 4 ranks, 700 to 700 Tflop/s per rank, all-reduce 12.5 GB/s, "
        "clocks 0.001 s apart (± 0.010), 41.0 GB free, 2 GPUs say that they are well"
    )
    bad = summarize(records, [Finding(host="n2", check="clock", words="late")], None, 0) | {"seconds": 1.0}
    assert words_of(bad) == "preflight in 1.00 s: n2 clock: late"
