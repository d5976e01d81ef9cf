"""What is wrong with a job's nodes, told from one small record per rank: pure."""

import errno
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, median_high
from typing import Any

from ..config.cluster import ClusterConfig
from ..config.preflight import PreflightConfig


@dataclass(frozen=True, kw_only=True)
class NodeRecord:
    """What the first rank of a node found out about it."""

    versions: Mapping[str, str]
    """Of the interpreter, libraries and driver; what is not there is left out."""
    write_errno: int | None
    """Why a file could not be written into the run directory and read again; None if it could."""
    write_error: str
    ahead_at_least_s: float
    ahead_at_most_s: float
    """Its clock is ahead of rank 0's by something between these two; below 0 it is behind."""


@dataclass(frozen=True, kw_only=True)
class RankRecord:
    """One rank, and what its matrix product came to."""

    rank: int
    host: str
    device: str
    """UUID of its GPU; empty on CPU."""
    kind: str
    """Name of the GPU; empty on CPU."""
    visible: int
    """GPUs that it sees."""
    tflops: float
    product: float
    """Checksum of the product: the same wherever it was computed."""
    gpus: Sequence[Mapping[str, Any]] | None = None
    """GpuHealth's fields of the GPUs that it asked the driver about; None: not measured."""
    gpus_silent: str = ""
    """Why the driver did not answer, if it should have."""
    node: NodeRecord | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A check that failed: on a node that is to be left, or (without a host) for the user to mend."""

    host: str
    check: str
    words: str


@dataclass(frozen=True, kw_only=True)
class Room:
    """What the run directory's file system has, and what a checkpoint takes."""

    folder: str
    free_bytes: int
    checkpoint_bytes: int


_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EPERM, errno.EACCES)  # the user's rights, the same from every node


def find_faults(
    records: Sequence[RankRecord], room: Room, limits: PreflightConfig, cluster: ClusterConfig
) -> list[Finding]:
    """Everything that is wrong, what the user can mend first."""
    nodes = {record.host: record.node for record in records if record.node is not None}
    return [
        *_disk(nodes, room),
        *_gpus(records, cluster.gpus_per_node),
        *_health(records),
        *_versions(nodes),
        *_clocks(nodes, limits.clock_skew_s),
        *_products(records),
        *_slow(records, limits.slowest_fraction, cluster.expected_tflops),
    ]


def _disk(nodes: Mapping[str, NodeRecord], room: Room) -> Iterator[Finding]:
    bad = {host: node for host, node in nodes.items() if node.write_errno is not None}
    for host, node in bad.items():
        ours = len(bad) == len(nodes) or node.write_errno in (*_FULL, *_REFUSED)
        words = f"could not be written ({node.write_error})" if ours else f"{room.folder}: {node.write_error}"
        yield Finding(host="" if ours else host, check="file system", words=words)
        if ours:
            return
    if not bad and room.free_bytes < room.checkpoint_bytes:
        words = f"{_bytes(room.free_bytes)} are free, and a checkpoint takes {_bytes(room.checkpoint_bytes)}"
        yield Finding(host="", check="file system", words=words)


def _gpus(records: Sequence[RankRecord], gpus_per_node: int) -> Iterator[Finding]:
    if not gpus_per_node:
        return
    by_host = _by_host(records)
    without = [host for host, ranks in by_host.items() if not all(rank.device for rank in ranks)]
    if len(without) == len(by_host):
        words = f"{gpus_per_node}, but torch can use no GPU on any node"
        yield Finding(host="", check="cluster.gpus_per_node", words=words)
        return
    for host, ranks in by_host.items():
        devices = {rank.device for rank in ranks if rank.device}
        if host in without:
            yield Finding(host=host, check="GPUs", words=f"torch can use no GPU, and {gpus_per_node} were allocated")
        elif max(len(devices), *(rank.visible for rank in ranks)) < gpus_per_node:
            seen = max(len(devices), *(rank.visible for rank in ranks))
            yield Finding(host=host, check="GPUs", words=f"{seen} of {gpus_per_node} allocated GPUs are there")


def _health(records: Sequence[RankRecord]) -> Iterator[Finding]:
    for record in records:
        if record.gpus_silent:
            yield Finding(host=record.host, check="GPU health", words=record.gpus_silent)
        for gpu in record.gpus or ():
            for words in _illnesses(gpu):
                yield Finding(host=record.host, check="GPU health", words=f"GPU {gpu['uuid']} {words}")


def _illnesses(gpu: Mapping[str, Any]) -> Iterator[str]:
    if gpu["lost"]:
        yield "is lost (it fell off the bus or needs a reset)"
    if gpu["uncorrected_errors"]:
        yield f"has had {gpu['uncorrected_errors']} uncorrected memory errors"
    if gpu["remap_pending"]:
        yield "needs a reset, to replace memory that failed"
    if gpu["remap_failed"]:
        yield "has no spare memory rows left for those that failed"
    for reason in gpu["slowed"] or ():
        yield f"is slowed down: {reason}"


def _versions(nodes: Mapping[str, NodeRecord]) -> Iterator[Finding]:
    """Those that differ from most nodes; in a draw, from the first node's."""
    for name in sorted({name for node in nodes.values() for name in node.versions}):
        found = {host: node.versions.get(name, "missing") for host, node in nodes.items()}
        [(usual, _), *_] = Counter(found.values()).most_common(1)
        for host, version in found.items():
            if version != usual:
                yield Finding(host=host, check="versions", words=f"{name} is {version}, and {usual} on other nodes")


def _clocks(nodes: Mapping[str, NodeRecord], limit_s: float) -> Iterator[Finding]:
    """Clocks that surely differ by more from most others; between two nodes, from the first one's."""
    if len(nodes) < 2:
        return
    ahead = {host: (node.ahead_at_most_s + node.ahead_at_least_s) / 2 for host, node in nodes.items()}
    usual = median(ahead.values()) if len(nodes) > 2 else 0.0
    for host, node in nodes.items():
        surely_s = abs(ahead[host] - usual) - (node.ahead_at_most_s - node.ahead_at_least_s) / 2
        if surely_s > limit_s:
            side = "ahead" if ahead[host] > usual else "behind"
            yield Finding(host=host, check="clock", words=f"its clock is {surely_s:.1f} s {side}")


def _products(records: Sequence[RankRecord]) -> Iterator[Finding]:
    for kind in sorted({record.kind for record in records}):
        same = [record for record in records if record.kind == kind]
        [(usual, _), *_] = Counter(record.product for record in same).most_common(1)
        for record in same:
            if record.product != usual:
                what = f"GPU {record.device}" if record.device else "it"
                words = f"{what} gets {record.product:.0f} where others get {usual:.0f} (rank {record.rank})"
                yield Finding(host=record.host, check="matrix product", words=words)


def _slow(records: Sequence[RankRecord], fraction: float, expected: float | None) -> Iterator[Finding]:
    """Beside the others, or beside what is expected."""
    rates = node_rates(records)
    usual = _usual_rate(records)
    for host, rate in rates.items():
        for other, whose in ((usual, "the median"), (expected, "expected")):
            if other is not None and rate < fraction * other:
                words = f"it computes {rate:.3g} Tflop/s, and {other:.3g} is {whose}"
                yield Finding(host=host, check="speed", words=words)
                break


def node_rates(records: Sequence[RankRecord]) -> dict[str, float]:
    """Tflop/s of each node's slowest GPU; of its fastest rank on CPU, since ranks share cores there."""
    pick = min if any(record.device for record in records) else max
    return {host: pick(rank.tflops for rank in ranks) for host, ranks in _by_host(records).items()}


def _usual_rate(records: Sequence[RankRecord]) -> float:
    """The median of all GPUs, or of all nodes on CPU; of two the faster, so that the slower one can be too slow."""
    if any(record.device for record in records):
        return median_high(record.tflops for record in records)
    return median_high(node_rates(records).values())


def _by_host(records: Sequence[RankRecord]) -> dict[str, list[RankRecord]]:
    hosts: dict[str, list[RankRecord]] = {}
    for record in records:
        hosts.setdefault(record.host, []).append(record)
    return hosts


def _bytes(size: int) -> str:
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
