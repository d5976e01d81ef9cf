"""Ranks finding each other: places, ports, interfaces."""

import os
import socket
import threading
from pathlib import Path

import pytest

from trainwright.config.cluster import ClusterConfig
from trainwright.launchers.rendezvous import Place, free_port, interface_to, join, place_from


def test_place_from_slurm() -> None:
    variables = {
        "SUBMITIT_EXECUTOR": "slurm",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_PROCID": "5",
        "SLURM_NTASKS": "8",
        "SLURM_LOCALID": "1",
        "SLURM_JOB_ID": "42",
    }
    place = Place(rank=5, world_size=8, local_rank=1, local_world_size=4, hosts=["n1", "n2"], job_id="42")
    assert place_from(variables) == place


def test_place_on_this_machine() -> None:
    variables = {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_NTASKS": "2", "SUBMITIT_LOCAL_GLOBALID": "1"}
    place = place_from(variables)
    assert (place.rank, place.world_size, place.local_rank, place.job_id) == (1, 2, 1, None)


def test_a_free_port_can_be_bound_and_is_not_one_of_outgoing_connections() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    for _ in range(20):
        port = free_port()
        assert not first <= port <= last
        with socket.socket() as listener:
            listener.bind(("", port))


def test_ranks_get_the_port_that_rank_0_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 1 comes first and waits."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")
    places = [
        Place(rank=rank, world_size=2, local_rank=rank, local_world_size=2, hosts=["here"], job_id=None)
        for rank in range(2)
    ]
    seen = []

    def late() -> None:
        join(places[1], tmp_path / "port.json", ClusterConfig())
        seen.append(os.environ["MASTER_PORT"])

    waiting = threading.Thread(target=late)
    waiting.start()
    join(places[0], tmp_path / "port.json", ClusterConfig(cpus_per_rank=3))
    offered = os.environ["MASTER_PORT"]
    waiting.join(timeout=20)
    assert seen == [offered]
    assert os.environ["MASTER_ADDR"] == "127.0.0.1"
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"


def test_interface_to() -> None:
    assert interface_to("127.0.0.1") == "lo"
    assert interface_to("no-such-host.invalid") is None
