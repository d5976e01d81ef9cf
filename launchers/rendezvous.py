"""How the ranks of a job find each other: places from the launcher's variables, a port that rank 0 found free."""

import fcntl
import json
import os
import random
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..config.cluster import ClusterConfig
from .processes import wait_until
from .slurm import expand_hosts, own_job_id

HANDOVER_TIMEOUT_S = 300.0  # nodes of one job may start minutes apart, and NFS shows new files late
_SIOCGIFADDR = 0x8915


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a rank is. Ranks are numbered node by node, so rank 0 is on hosts[0]."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    hosts: list[str]
    """Host names of the job's nodes, in Slurm's order."""
    job_id: str | None
    """Slurm's job id, or None on this machine."""

    @property
    def is_deputy(self) -> bool:
        """Whether it is the first rank of the second node: it sees to what the batch script on the first one cannot."""
        return len(self.hosts) > 1 and self.rank == self.local_world_size


def place_from(environment: Mapping[str, str]) -> Place:
    """The place that srun, or our controller, gave this process."""
    if environment["SUBMITIT_EXECUTOR"] == "local":
        size = int(environment["SUBMITIT_LOCAL_NTASKS"])
        rank = int(environment["SUBMITIT_LOCAL_GLOBALID"])
        hosts = [socket.gethostname()]
        return Place(rank=rank, world_size=size, local_rank=rank, local_world_size=size, hosts=hosts, job_id=None)
    hosts = expand_hosts(environment["SLURM_JOB_NODELIST"])
    return Place(
        rank=int(environment["SLURM_PROCID"]),
        world_size=int(environment["SLURM_NTASKS"]),
        local_rank=int(environment["SLURM_LOCALID"]),
        local_world_size=int(environment["SLURM_NTASKS"]) // len(hosts),  # the template asks for equal nodes
        hosts=hosts,
        job_id=own_job_id(environment),
    )


def join(place: Place, handover: Path, cluster: ClusterConfig) -> None:
    """Set what torch.distributed's env:// reads, and which interfaces gloo and NCCL use, in os.environ.

    Rank 0 writes the port that it found free to `handover`; the others wait for it. The file must be new for each
    start of the job. Raises TimeoutError if rank 0 does not write it.
    """
    one_node = len(place.hosts) == 1
    master = "127.0.0.1" if one_node else place.hosts[0]
    port = _offer_port(handover) if place.rank == 0 else _take_port(handover)
    os.environ.update(
        RANK=str(place.rank),
        WORLD_SIZE=str(place.world_size),
        LOCAL_RANK=str(place.local_rank),
        LOCAL_WORLD_SIZE=str(place.local_world_size),
        MASTER_ADDR=master,
        MASTER_PORT=str(port),
    )
    # One node needs no network, and its sockets stay on the loopback.
    interface = cluster.network_interface or ("lo" if one_node else interface_to(master))
    if interface:
        os.environ.update(GLOO_SOCKET_IFNAME=interface, NCCL_SOCKET_IFNAME=interface)
    if cluster.gpus_per_node == 0:
        os.environ["OMP_NUM_THREADS"] = str(cluster.cpus_per_rank)


def interface_to(host: str) -> str | None:
    """Name of the interface that this machine uses to reach `host`; None if it cannot be told."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # a datagram socket's connect asks the routing table and sends nothing
            ours = probe.getsockname()[0]
        except OSError:
            return None
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:  # no IPv4 address
                continue
            if socket.inet_ntoa(answer[20:24]) == ours:
                return name
    return None


def free_port() -> int:
    """A TCP port that is free here now, outside the range that the kernel gives to outgoing connections.

    A port of that range could be taken by any connection in the seconds until the store listens.
    """
    first, last = _ephemeral_range()
    candidates = [port for port in range(10000, 65000) if not first <= port <= last]
    for port in random.SystemRandom().sample(candidates, min(200, len(candidates))):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free TCP port in 200 tries")


def _ephemeral_range() -> tuple[int, int]:
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except OSError:
        return 32768, 60999
    return int(first), int(last)


def _offer_port(handover: Path) -> int:
    port = free_port()
    beside = handover.with_suffix(".new")
    beside.write_text(json.dumps({"port": port}), encoding="utf-8")
    beside.replace(handover)
    return port


def _take_port(handover: Path) -> int:
    def is_there() -> bool:
        os.listdir(handover.parent)  # makes NFS look again
        return handover.exists()

    if not wait_until(is_there, HANDOVER_TIMEOUT_S, every_s=0.1):
        raise TimeoutError(f"rank 0 left no port in {handover} within {HANDOVER_TIMEOUT_S:.0f} s; see its log")
    return int(json.loads(handover.read_text(encoding="utf-8"))["port"])
