"""Ending one of several runs that share a job: its job step, and the job itself once no other run is left in it."""

from pathlib import Path
from typing import Any

from ..config.errors import UserError
from ..config.loading import load_frozen
from ..config.rundir import RunDir
from .packs import runs_of
from .slurm import Slurm
from .status import read_statuses


def cancel_in_pack(run: RunDir, submit: dict[str, Any], signal: str) -> None:
    """Send the signal to the run's step, or end it if none is given. Its `cancel` is in the ledger: it starts no more.

    Raises UserError with scancel's words if it refuses.
    """
    slurm, job_id = Slurm(load_frozen(run.run_yaml).cluster), str(submit["job_id"])
    others = [one for one in runs_of(Path(submit["pack"])) if one.path != run.path]
    none_left = all(status.state in ("finished", "failed", "cancelled") for status in read_statuses(others))
    if none_left and not signal:
        slurm.cancel(job_id)
        return
    for step in _steps(slurm, job_id, run.name):
        done = slurm.ask(["scancel", *([f"--signal={signal}"] if signal else []), step])
        if done.returncode and "Invalid job id" not in done.stderr and "already" not in done.stderr:
            raise UserError(f"step {step}", f"scancel refused ({done.stderr.strip()})", "cancel as the job's owner")


def _steps(slurm: Slurm, job_id: str, name: str) -> list[str]:
    """Ids of the job's steps of that name."""
    lines = slurm.answer(["squeue", "--noheader", "--steps", f"--jobs={job_id}", "--format=%i %j"]).splitlines()
    pairs = (line.split() for line in lines)
    return [pair[0] for pair in pairs if len(pair) == 2 and pair[1] == name]
