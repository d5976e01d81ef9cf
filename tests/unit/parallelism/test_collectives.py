"""The record of collectives on real gloo ranks, whoever imported torch's functions and when."""

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.ranks

_RANK = """
import json, os, sys, threading, time
import torch, torch.distributed as dist
from torch.distributed import all_gather_into_tensor as bound_before, batch_isend_irecv, P2POp
from trainwright.parallelism.collectives import RECORD, install
install(); install()
rank, port = int(sys.argv[1]), sys.argv[2]
os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port, GLOO_SOCKET_IFNAME="lo")
dist.init_process_group("gloo")
group = dist.new_group([0, 1], group_desc="TENSOR_MODEL_PARALLEL_GROUP")
one, two = torch.ones(1), torch.zeros(2)
dist.all_reduce(one)
bound_before(two, one, group=group)
work = dist.all_reduce(one, group=group, async_op=True)
work.wait()
there = {1: [P2POp(dist.irecv, one, 0, group)], 0: [P2POp(dist.isend, one, 1, group)]}[rank]
for request in batch_isend_irecv(there):
    request.wait()
dist.all_gather_object([None, None], {"rank": rank}, group=group)
before = [vars(each) for each in RECORD.waiting()]
seen = []
def look():
    time.sleep(0.5)
    seen.extend(vars(each) for each in RECORD.waiting())
thread = threading.Thread(target=look)
thread.start()
if rank == 0:
    time.sleep(1)
dist.barrier(group=group)
thread.join()
entered = {key: vars(each) for key, each in RECORD.entered().items()}
began = time.perf_counter()
for _ in range(20000):
    RECORD.call(RECORD.of_group(group), "all_reduce", lambda: None)
cost_s = (time.perf_counter() - began) / 20000
print(json.dumps({"before": before, "seen": seen, "entered": entered, "cost_s": cost_s}))
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two ranks have recorded."""
    from trainwright.launchers.rendezvous import free_port

    script = tmp_path_factory.mktemp("ranks") / "rank.py"
    script.write_text(_RANK)
    port = str(free_port())
    ranks = [
        subprocess.Popen([sys.executable, "-W", "ignore", script, str(rank), port], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    return [json.loads(rank.communicate(timeout=120)[0]) for rank in ranks]


def test_each_operation_is_counted_by_group_in_its_order(said: list[dict[str, Any]]) -> None:
    for record in said:
        [whole, tensor, sent] = record["entered"].values()
        assert whole == {"count": 1, "recent": ["all_reduce"]}
        # Objects are two gathers: of their sizes, and of their bytes.
        names = ["all_gather_into_tensor", "all_reduce", "all_gather", "all_gather", "barrier"]
        assert tensor == {"count": 5, "recent": names}
        assert sent["count"] == 1
    assert said[0]["entered"].keys() == said[1]["entered"].keys(), "channels have the same names on both sides"
    assert [record["entered"].popitem()[1]["recent"] for record in said] == [["send"], ["recv"]]


def test_who_waits_is_in_it_and_who_has_left_is_not(said: list[dict[str, Any]]) -> None:
    assert said[0]["before"] == said[1]["before"] == said[0]["seen"] == []
    [inside] = said[1]["seen"]
    assert (inside["name"], inside["ranks"]) == ("tensor model parallel group", [0, 1])
    assert (inside["operation"], inside["sequence"]) == ("barrier", 5)


def test_it_costs_microseconds(said: list[dict[str, Any]]) -> None:
    print(*(f"{record['cost_s'] * 1e6:.2f} us per operation" for record in said))
    assert all(record["cost_s"] < 1e-3 for record in said)
