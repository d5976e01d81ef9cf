"""The Slurm job that this process is part of."""

import os
import sys

from ..config.loading import load_frozen
from ..config.rundir import RunDir
from .scontrol import ControlRefused, JobControl, JobDetails
from .slurm import Slurm, SlurmUnreachable, own_job_id


def control_of(run: RunDir) -> JobControl | None:
    """scontrol for this job; None on this machine."""
    job_id = own_job_id(os.environ)
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm" or not job_id:
        return None
    return JobControl(Slurm(load_frozen(run.run_yaml).cluster), job_id)


def details_of(control: JobControl | None) -> JobDetails | None:
    """What Slurm says of it now; None if it does not."""
    try:
        return control.details() if control else None
    except (ControlRefused, SlurmUnreachable) as error:
        print(f"trainwright: Slurm does not say what it knows of this job: {error}", file=sys.stderr)
        return None
