"""A replica as a Slurm job: how it is submitted, whether it lives, how it is ended."""

import time
from pathlib import Path

from ..config.cluster import ClusterConfig
from ..config.errors import UserError
from ..launchers.job import TaskSpec, run_module, submit_task
from ..launchers.processes import wait_until
from ..launchers.slurm import JobInfo, Slurm, SlurmUnreachable
from .endpoint import DRAIN_S, ENGINE_GRACE_S, EndpointFolder, Started

REPLICA_MODULE = "trainwright.serving.replica"
_POLL_S = 3.0  # squeue is shared by everybody
_STOP_FILE_SEEN_S = 60.0  # an NFS client may keep the old listing of a folder so long
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
_RUNNING = ("RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING", "COMPLETING")


def one_task(cluster: ClusterConfig) -> ClusterConfig:
    """The profile's place for a single process: a node's worth of its cores, one GPU if it has any."""
    cores = cluster.cpus_per_rank * cluster.ranks_per_node
    changes = {"nodes": 1, "ranks_per_node": 1, "cpus_per_rank": cores, "gpus_per_node": min(1, cluster.gpus_per_node)}
    return cluster.model_copy(update=changes)


def start_job(
    folder: EndpointFolder, name: str, cluster: ClusterConfig, code: Path | None = None, after: str | None = None
) -> Started:
    """Submit the replica as a job of one task, of this code, to start when job `after` has ended well.

    Raises UserError if the cluster refuses.
    """
    task = submit_task(
        TaskSpec(
            name=f"serve-{name}",
            title=f"Endpoint {name}: one vLLM replica and its front",
            function=run_module,
            arguments=(REPLICA_MODULE, str(folder.path)),
            cluster=one_task(cluster),
            directory=folder.path,
            folder=folder.job,
            logs=folder.path,
            template="serve.sbatch",
            code=code,
            after=(after,) if after else (),
        )
    )
    slurm_conf = None if cluster.slurm_conf is None else str(Path(cluster.slurm_conf).absolute())
    started = Started(host="", job_id=task.job_id, slurm_conf=slurm_conf)
    folder.write_started(started)
    return started


class JobWatch:
    """Asks Slurm about one job, not more often than every few seconds."""

    def __init__(self, started: Started) -> None:
        assert started.job_id is not None
        self.job_id = started.job_id
        self._slurm = Slurm(ClusterConfig(scheduler="slurm", slurm_conf=started.slurm_conf))
        self._asked = float("-inf")
        self._info: JobInfo | None = None

    def info(self) -> JobInfo | None:
        """What Slurm says; None if it has forgotten the job. Raises SlurmUnreachable."""
        if time.monotonic() - self._asked > _POLL_S:
            self._info = self._slurm.jobs([self.job_id]).get(self.job_id)
            self._asked = time.monotonic()
        return self._info

    def lives(self) -> bool | None:
        """Whether the job waits or runs; None if Slurm does not answer."""
        try:
            info = self.info()
        except SlurmUnreachable:
            return None
        return info is not None and info.state in (*_WAITING, *_RUNNING)

    def waits_for(self) -> str | None:
        """Why the job has not started; None if it has, or nothing is known."""
        try:
            info = self.info()
        except SlurmUnreachable:
            return None
        return (info.reason or "no reason given") if info is not None and info.state in _WAITING else None

    def cancel(self) -> None:
        """End the job at once."""
        self._slurm.cancel(self.job_id)


def stop_job(folder: EndpointFolder, started: Started) -> None:
    """Let the replica finish its requests, then end the job.

    The replica is asked by a file, since Slurm's signals reach vLLM's own processes at the same moment.
    """
    watch = JobWatch(started)
    if watch.lives() is False:
        return
    if watch.waits_for() is None:
        folder.stop_request.touch()
        patience_s = DRAIN_S + ENGINE_GRACE_S + _STOP_FILE_SEEN_S
        wait_until(lambda: watch.lives() is False, patience_s, every_s=0.5)
    if watch.lives() is not False:
        watch.cancel()
        wait_until(lambda: watch.lives() is False, 60.0, every_s=0.5)
    if watch.lives() is not False:
        raise UserError(f"job {watch.job_id}", "does not end", f"see `squeue -j {watch.job_id}`")
