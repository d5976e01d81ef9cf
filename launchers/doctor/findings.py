"""What a cluster's configuration means for runs: each finding with the line that shows it, and what to do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ...config.cluster import ClusterConfig
from ..cluster_config import LEAST_KILL_WAIT_S, ClusterFacts, NodeGroup, Partition
from ..user_limits import UserLimits
from .predict import can_be_preempted, preempt_mode, save_time_s

Severity = Literal["good", "note", "bad"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a user should know; `bad` means that something will not work."""

    severity: Severity
    line: str
    """As Slurm prints it."""
    text: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Site:
    """What findings are told from."""

    facts: ClusterFacts
    partition: Partition
    limits: UserLimits
    cluster: ClusterConfig
    save_s: float
    """Seconds that saving takes."""

    @property
    def nodes(self) -> list[NodeGroup]:
        return [group for group in self.facts.nodes if group.partition == self.partition.name]

    def words(self, *names: str) -> str:
        """Words of the partition as scontrol prints them."""
        shown = " ".join(f"{name}={self.partition.words.get(name, '')}" for name in names)
        return f"PartitionName={self.partition.name} {shown}"


def findings(site: Site) -> list[Finding]:
    """All findings, bad ones first."""
    found = [finding for check in _CHECKS for finding in check(site)]
    return sorted(found, key=lambda finding: ("bad", "note", "good").index(finding.severity))


def _preemption(site: Site) -> Iterator[Finding]:
    facts, part = site.facts, site.partition
    line = f"{facts.line('PreemptType')}, {site.words('PreemptMode', 'PriorityTier', 'GraceTime')}"
    if not can_be_preempted(facts, part):
        yield Finding(severity="good", line=line, text="no job of this partition is preempted")
        return
    if "SUSPEND" in preempt_mode(facts, part):
        text = "a preempted job is suspended, with its GPU memory in use, and its collectives run into timeouts"
        yield Finding(severity="bad", line=line, text=text, remedy="use a partition that requeues or cancels")
        return
    have_s = save_time_s(facts, part, site.limits, site.cluster.qos or "")
    told = "SIGUSR2" if facts.user_signal_at_preemption else "SIGTERM"
    text = f"a preempted job gets {told} and surely has {have_s:.0f} s until SIGKILL; a save takes {site.save_s:.0f} s"
    if have_s < site.save_s:
        remedy = "save often (checkpoint.every_steps): steps since the last commit are lost; or ask for a GraceTime"
        yield Finding(severity="bad", line=line, text=text, remedy=remedy)
    else:
        yield Finding(severity="good", line=line, text=text)
    if preempt_mode(facts, part).startswith("CANCEL"):
        text = "a preempted job is cancelled, not requeued"
        yield Finding(severity="note", line=line, text=text, remedy="go on with `trainwright submit RUN`")


def _user_signal(site: Site) -> Iterator[Finding]:
    facts = site.facts
    if not can_be_preempted(facts, site.partition):
        return
    line = f"{facts.line('SlurmctldParameters')}, {facts.line('PreemptParameters')}"
    if facts.user_signal_at_preemption:
        text = "a preempted job gets the signal of its --signal, as before the time limit"
        yield Finding(severity="good", line=line, text=text)
    else:
        text = "a preempted job gets SIGTERM alone, not the signal of its --signal"
        remedy = "nothing: SIGTERM is taken as a wish to save too; admins can set send_user_signal"
        yield Finding(severity="note", line=line, text=text, remedy=remedy)


def _kill_wait(site: Site) -> Iterator[Finding]:
    wait_s, said = site.facts.kill_wait_s, site.facts.number("KillWait", 30)
    least = f" (less than {LEAST_KILL_WAIT_S} s counts as {LEAST_KILL_WAIT_S} s)" if said < wait_s else ""
    text = f"SIGKILL comes {wait_s} s after SIGTERM{least}; a save takes {site.save_s:.0f} s"
    if wait_s < site.save_s:
        remedy = "send `scancel --batch --signal=USR2 JOB` and wait before a plain scancel, when the last steps matter"
        yield Finding(severity="note", line=site.facts.line("KillWait"), text=text, remedy=remedy)
    else:
        yield Finding(severity="good", line=site.facts.line("KillWait"), text=text)


def _process_tracking(site: Site) -> Iterator[Finding]:
    line, kind = site.facts.line("ProctrackType"), site.facts.config.get("ProctrackType", "")
    if kind.endswith("pgid"):
        text = "processes that lead a session of their own get no signal and outlive their job, with its GPUs"
        yield Finding(severity="bad", line=line, text=text, remedy="ask admins for proctrack/cgroup")
    elif kind.endswith("linuxproc"):
        text = "data workers get a job's signals too; processes whose parents are gone outlive the job"
        yield Finding(severity="note", line=line, text=text, remedy="nothing: workers ignore signals meant for ranks")
    elif kind.endswith("cgroup"):
        reached = "ranks and all that they start" if site.facts.signals_children else "ranks alone"
        yield Finding(severity="good", line=line, text=f"signals reach {reached}; nothing outlives its job")
    else:
        text = "what reaches which process is not known here"
        yield Finding(severity="note", line=line, text=text, remedy="see with --canary")


def _requeue(site: Site) -> Iterator[Finding]:
    facts = site.facts
    if facts.number("JobRequeue", 1):
        yield Finding(severity="good", line=facts.line("JobRequeue"), text="jobs may be requeued")
    else:
        text = "jobs are requeued only if they ask for it"
        yield Finding(severity="note", line=facts.line("JobRequeue"), text=text, remedy="nothing: a job may ask")
    for name in ("RequeueExit", "RequeueExitHold"):
        taken = {"85", "86", "93"} & set(facts.config.get(name, "").replace(" ", "").split(","))
        if taken:
            text = f"Slurm takes exit code {', '.join(sorted(taken))} for its own orders; here it is a rank's verdict"
            yield Finding(severity="bad", line=facts.line(name), text=text, remedy="ask admins to leave it out")


def _accounting(site: Site) -> Iterator[Finding]:
    line = site.facts.line("AccountingStorageType")
    if site.facts.keeps_accounts:
        yield Finding(severity="good", line=line, text="sacct knows jobs that Slurm itself has forgotten")
    else:
        text = "no accounts are kept: what became of a job is known from the ledger alone once Slurm forgets it"
        remedy = f"nothing: it is remembered for {site.facts.line('MinJobAge')}, and the ledger keeps it"
        yield Finding(severity="note", line=line, text=text, remedy=remedy)
    enforced = site.facts.config.get("AccountingStorageEnforce", "").lower()
    if "associations" in enforced and not site.limits.accounts:
        text = "only users with an association may submit, and you have none"
        line = site.facts.line("AccountingStorageEnforce")
        yield Finding(severity="bad", line=line, text=text, remedy="ask admins for an account")


def _user_limits(site: Site) -> Iterator[Finding]:
    account = site.cluster.account or site.limits.default_account
    limits = (site.limits.of_account or {}).get(account)
    if limits is not None:
        text = f"your limits there: {limits}" if limits else "you have no limits of your own there"
        yield Finding(severity="note" if limits else "good", line=f"Account={account} {limits}".strip(), text=text)


def _node_failure(site: Site) -> Iterator[Finding]:
    limit_s, line = site.facts.number("SlurmdTimeout", 300), site.facts.line("SlurmdTimeout")
    if limit_s == 0:
        text = "nodes that do not answer are never set down, so a job on a dead node waits for ever"
        yield Finding(severity="bad", line=line, text=text, remedy="ask admins for 300 s")
    else:
        text = f"a dead node is noticed after about {limit_s} s"
        yield Finding(severity="note" if limit_s > 600 else "good", line=line, text=text)


def _binding(site: Site) -> Iterator[Finding]:
    line, plugin = site.facts.line("TaskPlugin"), site.facts.config.get("TaskPlugin", "")
    if "affinity" in plugin or "cgroup" in plugin:
        yield Finding(severity="good", line=line, text="ranks are bound to the cores that they asked for")
    else:
        text = "ranks are not bound to cores and may push each other about"
        yield Finding(severity="note", line=line, text=text, remedy="give jobs whole nodes")


def _memory(site: Site) -> Iterator[Finding]:
    counted = "MEMORY" in site.facts.config.get("SelectTypeParameters", "").upper()
    if not counted or site.cluster.memory_per_node:
        return
    names = ("DefMemPerCPU", "DefMemPerNode", "DefMemPerGPU")
    places = (site.partition.words, site.facts.config)
    given = next(((n, p[n]) for p in places for n in names if p.get(n, "UNLIMITED") not in ("UNLIMITED", "")), None)
    line = f"{site.facts.line('SelectTypeParameters')}, {given[0]} = {given[1]}" if given else site.facts.line(names[1])
    text = f"without cluster.memory_per_node a job gets {given[0]}={given[1]} MB" if given else "a job gets all memory"
    yield Finding(severity="note", line=line, text=text, remedy="set cluster.memory_per_node" if given else "")


def _arrays(site: Site) -> Iterator[Finding]:
    size = site.facts.number("MaxArraySize", 1001)
    text = f"arrays have at most {size} tasks" if size > 1 else "no arrays: sweeps and `data build --cluster` fail"
    yield Finding(severity="good" if size > 1 else "bad", line=site.facts.line("MaxArraySize"), text=text)


def _limits(site: Site) -> Iterator[Finding]:
    part, facts = site.partition, site.facts
    if not part.is_up:
        text = "jobs wait until the partition is up again"
        yield Finding(severity="bad", line=site.words("State"), text=text, remedy="choose another partition")
    text = f"runs last at most {part.words.get('MaxTime', '')}"
    if not part.is_default:
        text += "; not the default partition: cluster.partition must name it"
    yield Finding(severity="good", line=site.words("Default", "MaxTime", "DefaultTime"), text=text)
    if facts.config.get("EnforcePartLimits", "NO").upper() == "NO":
        text = "Slurm takes jobs beyond a partition's limits, and they wait for ever"
        remedy = "nothing: `plan` and `submit` check the limits themselves"
        yield Finding(severity="note", line=facts.line("EnforcePartLimits"), text=text, remedy=remedy)


def _gpus(site: Site) -> Iterator[Finding]:
    kinds: dict[tuple[str, int], int] = {}
    for group in site.nodes:
        for kind, count in group.gpus.items():
            kinds[kind, count] = kinds.get((kind, count), 0) + group.count
    if not kinds:
        yield Finding(severity="note", line=site.words("TotalNodes"), text="no GPUs: runs train on CPU")
        return
    shown = ", ".join(f"{nodes} nodes with {count} {kind or 'GPU'}" for (kind, count), nodes in sorted(kinds.items()))
    text = f"{shown}{'; a run may get different GPUs' if len(kinds) > 1 else ''}"
    features = sorted({feature for group in site.nodes for feature in group.features})
    remedy = f"choose with cluster.constraint: {', '.join(features)}" if len(kinds) > 1 and features else ""
    yield Finding(
        severity="note" if len(kinds) > 1 else "good", line=site.words("TotalNodes"), text=text, remedy=remedy
    )


_CHECKS: tuple[Callable[[Site], Iterator[Finding]], ...] = (
    _preemption,
    _user_signal,
    _kill_wait,
    _process_tracking,
    _requeue,
    _accounting,
    _user_limits,
    _node_failure,
    _binding,
    _memory,
    _arrays,
    _limits,
    _gpus,
)
