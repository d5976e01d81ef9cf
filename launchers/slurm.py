"""The one seam to Slurm's commands; here sbatch, squeue, sacct and scancel, elsewhere others through `Slurm.ask`."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config.cluster import ClusterConfig
from ..config.errors import UserError
from .environment import slurm_values

TIMEOUT_S = 60.0  # a controller under load answers late; one that is gone says so itself sooner

_SILENT = re.compile(r"Unable to contact slurm controller|Connection refused|Connection timed out|Socket timed out")


class SlurmUnreachable(RuntimeError):
    """Slurm did not answer, so nothing is known about its jobs."""


@dataclass(frozen=True, kw_only=True)
class JobInfo:
    """What Slurm says about a job: its state in Slurm's words, why it waits, and its nodes (a Slurm host list)."""

    state: str
    reason: str = ""
    nodes: str = ""


class Slurm:
    """Commands against one cluster."""

    def __init__(self, cluster: ClusterConfig) -> None:
        self._environment = {"PATH": os.environ.get("PATH", os.defpath), **slurm_values(cluster)}
        if "HOME" in os.environ:
            self._environment["HOME"] = os.environ["HOME"]
        self._conf = self._environment.get("SLURM_CONF")

    def check(self) -> None:
        """UserError with the remedy where this machine cannot submit to the cluster."""
        if not shutil.which("sbatch"):
            raise UserError(
                "cluster.scheduler",
                "slurm, but there is no sbatch on this machine",
                "submit from a login node, or set cluster.profile=local",
            )
        if self._conf is None:
            return
        try:
            owner = Path(self._conf).stat().st_uid
        except FileNotFoundError:
            raise UserError(
                "cluster.slurm_conf",
                f"{self._conf} does not exist",
                "start the dev cluster with `trainwright cluster dev up`, or give your cluster's slurm.conf",
            ) from None
        if owner not in (0, os.geteuid()):  # it names plugins, which run as us
            raise UserError("cluster.slurm_conf", f"{self._conf} belongs to user {owner}", "use root's or your own")

    def sbatch(self, script: Path, environment: Mapping[str, str]) -> str:
        """Submit a script with just this environment; the job id. UserError with sbatch's words if it refuses."""
        self.check()
        done = self._run(["sbatch", "--parsable", str(script)], {**environment, **self._environment})
        if done.returncode:
            said = " ".join(line.removeprefix("sbatch: ") for line in done.stderr.split("\n")).strip()
            raise UserError("cluster", f"sbatch refused ({said})", "change the cluster section, or ask its admins")
        job_id = done.stdout.strip().split("\n")[-1].partition(";")[0]
        if not job_id.isdigit():
            raise RuntimeError(f"sbatch printed {done.stdout!r} and no job id")
        return job_id

    def jobs(self, job_ids: Sequence[str]) -> dict[str, JobInfo]:
        """What Slurm knows of these jobs, in one call to squeue and, for those it forgot, one to sacct.

        A job that Slurm no longer knows is left out. Raises SlurmUnreachable if Slurm does not answer.
        """
        if not job_ids:
            return {}
        self._must_exist("squeue")
        command = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={','.join(job_ids)}"]
        command.append("--format=%i|%T|%r|%N")
        done = self._run(command, self._environment)
        if done.returncode and "Invalid job id" not in done.stderr:
            raise SlurmUnreachable(" ".join(done.stderr.split()) or f"squeue ended with {done.returncode}")
        wanted = set(job_ids)  # of an array it may tell about other tasks too
        found = {job_id: job for job_id, job in _parse(done.stdout).items() if job_id in wanted}
        forgotten = [job_id for job_id in job_ids if job_id not in found]
        return {**found, **(self._accounted(forgotten) if forgotten else {})}

    def are_alive(self, job_ids: Sequence[str]) -> bool:
        """Whether any of these jobs, or any task of an array, waits or runs. Raises SlurmUnreachable."""
        self._must_exist("squeue")
        command = ["squeue", "--noheader", f"--jobs={','.join(job_ids)}", "--format=%i"]
        done = self._run(command, self._environment)
        if done.returncode and "Invalid job id" not in done.stderr:
            raise SlurmUnreachable(" ".join(done.stderr.split()) or f"squeue ended with {done.returncode}")
        return bool(done.stdout.strip())

    def cancel(self, job_id: str) -> None:
        """End a job. UserError with scancel's words if it refuses; a job that is over already is fine."""
        self._must_exist("scancel")
        done = self._run(["scancel", job_id], self._environment)
        if done.returncode and "Invalid job id" not in done.stderr and "already completing" not in done.stderr:
            raise UserError(f"job {job_id}", f"scancel refused ({done.stderr.strip()})", "cancel as the job's owner")

    def signal_script(self, job_id: str, name: str) -> None:
        """Send a signal to the job's batch script alone. UserError with scancel's words if it refuses."""
        done = self.ask(["scancel", f"--signal={name}", "--batch", job_id])
        if done.returncode:
            raise UserError(f"job {job_id}", f"scancel refused ({done.stderr.strip()})", "cancel as the job's owner")

    def ask(
        self,
        command: list[str],
        timeout_s: float = TIMEOUT_S,
        script: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """Run another of Slurm's commands, with `script` on its stdin and `environment` beside what Slurm needs.

        Raises SlurmUnreachable if it is missing or the controller is silent.
        """
        self._must_exist(command[0])
        done = self._run(command, {**(environment or {}), **self._environment}, timeout_s, script)
        if done.returncode and _SILENT.search(done.stderr):
            raise SlurmUnreachable(" ".join(done.stderr.split()))
        return done

    def answer(self, command: list[str], timeout_s: float = TIMEOUT_S) -> str:
        """What a command prints about the cluster. Raises SlurmUnreachable if it is missing, refuses or is too late."""
        done = self.ask(command, timeout_s)
        if done.returncode:
            raise SlurmUnreachable(" ".join(done.stderr.split()) or f"{command[0]} ended with {done.returncode}")
        return done.stdout

    def _accounted(self, job_ids: list[str]) -> dict[str, JobInfo]:
        """From sacct, where there is one and the cluster keeps accounts."""
        if not shutil.which("sacct"):
            return {}
        fields = "--format=JobID,State,Reason,NodeList"
        command = ["sacct", "-X", "--noheader", "--parsable2", f"--jobs={','.join(job_ids)}", fields]
        done = self._run(command, self._environment)
        return {} if done.returncode else _parse(done.stdout)

    def _must_exist(self, command: str) -> None:
        if not shutil.which(command):
            raise SlurmUnreachable(f"there is no {command} on this machine")

    def _run(
        self,
        command: list[str],
        environment: Mapping[str, str],
        timeout_s: float = TIMEOUT_S,
        script: str | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        try:
            return subprocess.run(
                command,
                env=dict(environment),
                input=script,
                stdin=subprocess.DEVNULL if script is None else None,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SlurmUnreachable(f"{command[0]} gave no answer in {timeout_s:.0f} s") from None


def _parse(text: str) -> dict[str, JobInfo]:
    jobs = {}
    for line in text.splitlines():
        job_id, state, reason, nodes = [*line.split("|"), "", "", ""][:4]
        word = state.split()[0] if state else "UNKNOWN"  # sacct says `CANCELLED by 1000`
        nodes = "" if nodes == "None assigned" else nodes
        jobs[job_id] = JobInfo(state=word, reason="" if reason == "None" else reason, nodes=nodes)
    return jobs


def own_job_id(environment: Mapping[str, str]) -> str | None:
    """The job that this process belongs to, as Slurm's commands take it; None outside of a job.

    A task of an array is ARRAY_TASK: its SLURM_JOB_ID may be the array's, and then means all tasks to scontrol.
    """
    array = environment.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}" if array else environment.get("SLURM_JOB_ID")


def expand_hosts(text: str) -> list[str]:
    """Host names of a Slurm host list, such as `gpu[01-03,7]-x,login` (what `scontrol show hostnames` prints)."""
    parts = re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", text)
    return [host for part in parts for host in _expand(part)]


def _expand(part: str) -> list[str]:
    match = re.match(r"([^\[]*)\[([^\]]*)\](.*)", part)
    if not match:
        return [part]
    head, ranges, tail = match.groups()
    return [f"{head}{number}{rest}" for number in _numbers(ranges) for rest in _expand(tail)]


def _numbers(ranges: str) -> list[str]:
    numbers = []
    for item in ranges.split(","):
        first, _, last = item.partition("-")
        last = last or first
        numbers += [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    return numbers
