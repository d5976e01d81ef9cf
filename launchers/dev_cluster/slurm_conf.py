"""The text of a dev cluster's slurm.conf, gres.conf and slurmdbd.conf, made from its names and settings."""

from .names import ClusterNames

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
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/none
MpiDefault=none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue={job_requeue}
KillWait={kill_wait_s}
MaxArraySize={max_array_size}
SlurmctldTimeout=30
MessageTimeout={message_timeout_s}
SlurmdTimeout={slurmd_timeout_s}
{more}
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime={max_time} State=UP{main}
{urgent}
"""

_SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.socket
DbdHost={ctl_name}
DbdAddr={ctl_address}
DbdPort={dbd_port}
SlurmUser=root
PidFile={folder}/state/slurmdbd.pid
LogFile={folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
"""


def slurm_conf(names: ClusterNames, hostname: str, memory_mb: int) -> str:
    """slurm.conf; `hostname` is this machine's, used in the loopback form."""
    asked = names.settings
    main = f" PriorityTier=1 GraceTime={asked.grace_s}" if asked.preemption else ""
    urgent = f"PartitionName=urgent Nodes=ALL MaxTime={asked.max_time} State=UP PriorityTier=10 PreemptMode=OFF"
    return _SLURM_CONF.format(
        folder=names.folder,
        ctl_name=hostname if names.loopback else names.controller,
        ctl_address=names.hosts[names.controller],
        ctl_port=names.ctl_port,
        node_port=names.node_port,
        proctrack=asked.proctrack,
        job_requeue=int(asked.job_requeue),
        kill_wait_s=asked.kill_wait_s,
        max_array_size=asked.max_array_size,
        slurmd_timeout_s=asked.slurmd_timeout_s,
        # An order that is answered later is given again, and then meets the next start of a job.
        message_timeout_s=max(10, min(30, asked.slurmd_timeout_s // 2)),
        more="\n".join([*_accounting(names, hostname), *_preemption(names)]),
        nodes="\n".join(_nodes(names, hostname, memory_mb)),
        max_time=asked.max_time,
        main=main,
        urgent=urgent if asked.preemption else "",
    )


def slurmdbd_conf(names: ClusterNames, hostname: str) -> str:
    """slurmdbd.conf; the database is reached through MYSQL_UNIX_PORT, so there is no password."""
    return _SLURMDBD_CONF.format(
        folder=names.folder,
        ctl_name=hostname if names.loopback else names.controller,
        ctl_address=names.hosts[names.controller],
        dbd_port=names.dbd_port,
    )


def gres_conf(names: ClusterNames) -> str:
    """gres.conf: every node has the same device files."""
    asked = names.settings
    last = asked.gpus_per_node - 1
    files = f"{names.devices}/gpu[0-{last}]" if last else f"{names.devices}/gpu0"
    nodes = ",".join(names.nodes)
    count = asked.gpus_per_node
    return f"AutoDetect=off\nNodeName={nodes} Name=gpu Type={asked.gpu_type} Count={count} File={files}\n"


def _accounting(names: ClusterNames, hostname: str) -> list[str]:
    asked = names.settings
    if asked.accounting == "none":
        return ["AccountingStorageType=accounting_storage/none", "JobAcctGatherType=jobacct_gather/none"]
    lines = [
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={hostname if names.loopback else names.controller}",
        f"AccountingStoragePort={names.dbd_port}",
        f"AccountingStoragePass={names.folder}/munge/munge.socket",  # munged's, as in AuthInfo
        "JobAcctGatherType=jobacct_gather/linux",
    ]
    if asked.gpus_per_node:
        lines.append("AccountingStorageTRES=gres/gpu")
    if asked.accounting == "enforced":  # as sites do that have accounts for more than counting
        lines += ["PriorityType=priority/multifactor", "PriorityWeightFairshare=1000", "PriorityWeightAge=100"]
    if asked.accounting == "enforced":
        lines.append("AccountingStorageEnforce=associations,limits,qos")
    return lines


def _preemption(names: ClusterNames) -> list[str]:
    asked = names.settings
    lines = []
    if asked.preemption:
        lines = ["PreemptType=preempt/partition_prio", "PreemptMode=REQUEUE"]
        # Slurm looks for jobs to start every 30 s, which is long where little else happens.
        lines.append("SchedulerParameters=bf_interval=2,sched_interval=2")
    if asked.user_signal:  # newer Slurm calls it PreemptParameters=send_user_signal, and knows this spelling too
        lines.append("SlurmctldParameters=preempt_send_user_signal")
    return lines


def _nodes(names: ClusterNames, hostname: str, memory_mb: int) -> list[str]:
    asked = names.settings
    lines = ["GresTypes=gpu"] if asked.gpus_per_node else []
    gres = f" Gres=gpu:{asked.gpu_type}:{asked.gpus_per_node}" if asked.gpus_per_node else ""
    for number, node in enumerate(names.nodes):
        place = f"NodeHostname={node}"
        if names.loopback:
            place = f"NodeHostname={hostname} Port={names.node_port + number}"
        lines.append(
            f"NodeName={node} {place} NodeAddr={names.hosts[node]} CPUs={CPUS_PER_NODE} Boards=1 SocketsPerBoard=1 "
            f"CoresPerSocket={CPUS_PER_NODE} ThreadsPerCore=1 RealMemory={memory_mb}{gres} State=UNKNOWN"
        )
    return lines
