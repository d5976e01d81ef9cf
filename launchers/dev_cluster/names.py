"""Names, addresses and files of one dev cluster, and the text of its slurm.conf. Nothing here touches the machine."""

from dataclasses import dataclass
from pathlib import Path

CPUS_PER_NODE = 8  # more than the machine may have: a toy cluster's point is its shape, not its speed

_SLURM_CONF = """\
# Written by `trainwright cluster dev up`; gone after `trainwright cluster dev down`.
ClusterName=trainwright-dev
SlurmctldHost={ctl_name}({ctl_address})
SlurmctldPort={ctl_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/state/slurmctld.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdSpoolDir={folder}/spool/%n
SlurmdPidFile={folder}/state/%n.pid
SlurmdLogFile={folder}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=0
KillWait=10
SlurmctldTimeout=30
SlurmdTimeout=60
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True, kw_only=True)
class ClusterNames:
    """What one dev cluster calls its parts. `index` keeps clusters on one machine apart."""

    folder: Path
    index: int
    num_nodes: int
    loopback: bool
    """All daemons share the machine's own network on 127.0.0.1, each with its own port."""
    ctl_port: int = 6817
    node_port: int = 6818
    """Port of every slurmd; of the first one in the loopback form, where the others follow."""

    @property
    def slurm_conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def bridge(self) -> str:
        return f"twdev{self.index}"

    @property
    def bridge_address(self) -> str:
        return f"10.213.{self.index}.1"

    @property
    def controller(self) -> str:
        """Host name and network namespace of the controller."""
        return f"twdev{self.index}-ctl"

    @property
    def nodes(self) -> list[str]:
        """Host names of the nodes, which are their Slurm names and their network namespaces too."""
        return [f"twdev{self.index}-node{number}" for number in range(1, self.num_nodes + 1)]

    @property
    def hosts(self) -> dict[str, str]:
        """Address of every host of the cluster by name, the controller first."""
        names = [self.controller, *self.nodes]
        return {name: "127.0.0.1" if self.loopback else f"10.213.{self.index}.{2 + n}" for n, name in enumerate(names)}

    def veth(self, host: str) -> str:
        """The bridge's end of the cable to `host` (interface names hold 15 characters)."""
        return f"twv{self.index}-{list(self.hosts).index(host)}"

    @property
    def hosts_mark(self) -> str:
        """End of our lines in /etc/hosts."""
        return f"# trainwright dev cluster {self.index}"

    def slurm_conf_text(self, hostname: str, memory_mb: int) -> str:
        """slurm.conf; `hostname` is this machine's, used in the loopback form."""
        lines = []
        for number, node in enumerate(self.nodes):
            place = f"NodeHostname={node}"
            if self.loopback:
                place = f"NodeHostname={hostname} Port={self.node_port + number}"
            lines.append(
                f"NodeName={node} {place} NodeAddr={self.hosts[node]} CPUs={CPUS_PER_NODE} Boards=1 SocketsPerBoard=1 "
                f"CoresPerSocket={CPUS_PER_NODE} ThreadsPerCore=1 RealMemory={memory_mb} State=UNKNOWN"
            )
        return _SLURM_CONF.format(
            folder=self.folder,
            ctl_name=hostname if self.loopback else self.controller,
            ctl_address=self.hosts[self.controller],
            ctl_port=self.ctl_port,
            node_port=self.node_port,
            nodes="\n".join(lines),
        )
