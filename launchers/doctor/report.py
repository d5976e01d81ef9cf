"""`doctor` as one call: read, find, predict, propose, and compare with canaries."""

from dataclasses import dataclass
from pathlib import Path

from ...config.cluster import ClusterConfig
from ...config.errors import UserError
from ...config.profiles import load_profile
from ..cluster_config import ClusterFacts, read_cluster
from ..slurm import Slurm, SlurmUnreachable
from ..user_limits import UserLimits, read_user_limits
from .canary import Observed, Progress, Wanted, differences, run_canaries
from .findings import Finding, Site, findings
from .predict import Delivery, predict
from .profile import best_partition, propose


@dataclass(frozen=True, kw_only=True)
class Report:
    """What doctor says of a cluster."""

    version: str
    cluster: str
    partition: str
    findings: list[Finding]
    predicted: list[Delivery]
    observed: list[Observed] | None
    """What canaries saw; None: none were asked for."""
    differences: list[str]
    """Where they saw other things than were predicted, a line each."""
    profile: dict[str, object]
    """Fields of a profile that suits the cluster."""
    configuration: dict[str, str]
    """`scontrol show config`."""
    fine: bool


def examine(profile: str | None, save_s: float, wanted: Wanted | None, say: Progress) -> Report:
    """Examine the cluster of a profile, or that of this shell; UserError where there is none, or it does not answer."""
    cluster = _cluster(profile)
    slurm = Slurm(cluster)
    slurm.check()
    facts, limits = _read(slurm)
    partition = best_partition(facts, cluster.partition)
    cluster = cluster.model_copy(update={"partition": partition.name})
    predicted = predict(facts, partition, limits, cluster.qos or "")
    site = Site(facts=facts, partition=partition, limits=limits, cluster=cluster, save_s=save_s)
    found = findings(site)
    observed = None
    if wanted is not None:
        if wanted.preempt and facts.partition(wanted.preempt) is None:
            names = ", ".join(part.name for part in facts.partitions)
            raise UserError("--canary-preempt", f"{wanted.preempt} is not on this cluster", f"use one of {names}")
        try:
            observed = run_canaries(cluster, predicted, wanted, say)
        except SlurmUnreachable as error:
            raise UserError("--canary", f"Slurm does not answer any more ({error})", "try again later") from None
    differ = differences(predicted, observed or [])
    return Report(
        version=facts.version,
        cluster=facts.config.get("ClusterName", "?"),
        partition=partition.name,
        findings=found,
        predicted=predicted,
        observed=observed,
        differences=differ,
        profile=propose(facts, partition, limits, cluster),
        configuration=facts.config,
        fine=not differ and all(finding.severity != "bad" for finding in found),
    )


def _cluster(profile: str | None) -> ClusterConfig:
    fields = load_profile(profile, Path.cwd()) if profile else {"scheduler": "slurm"}
    cluster = ClusterConfig(**fields)
    if cluster.scheduler != "slurm":
        raise UserError("--profile", f"{profile} is no Slurm cluster", "give a profile with scheduler: slurm")
    return cluster


def _read(slurm: Slurm) -> tuple[ClusterFacts, UserLimits]:
    try:
        facts = read_cluster(slurm)
    except SlurmUnreachable as error:
        raise UserError("doctor", f"the controller does not answer ({error})", "see whether it is up") from None
    try:
        return facts, read_user_limits(slurm, facts)
    except SlurmUnreachable:
        return facts, UserLimits()
