"""What follows a run on Slurm by itself: its export, and an endpoint; jobs that start once the run has finished."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..config.errors import UserError
from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..launchers.job import TaskSpec, run_module, submit_task
from ..launchers.slurm import Slurm
from ..launchers.submission import Submitted
from ..tracking.ledger import LedgerWriter
from .endpoint import EndpointFolder, check_name, claim, forget
from .export import DTYPES
from .jobs import one_task, start_job
from .launch import ServeOptions, make_spec
from .models import ServedModel, expected_export, model_config
from .service import job_python, refuse_living

_EXPORT_MODULE = "trainwright.serving.finished_export"


@dataclass(frozen=True, kw_only=True)
class Followers:
    """Slurm jobs that wait for a run, and the name of the endpoint if there will be one."""

    export_job: str
    serve_job: str | None = None
    endpoint: str | None = None


def check_chain(run: RunConfig, options: ServeOptions | None) -> None:
    """Whether what shall follow a run could be, as far as it is known before that starts. Raises UserError."""
    if run.cluster.scheduler != "slurm":
        raise UserError("--then", "jobs that wait need Slurm", "here, add --wait: they are done when the run has ended")
    if options is None:
        return
    check_name(options.name or run.name)
    config = model_config(Path(run.model)) | {"dtype": DTYPES[run.train.precision]}
    make_spec(ServedModel(Path(), None, options.name or run.name, config), options, "node", None, "")


def submit_followers(submitted: Submitted, run: RunConfig, options: ServeOptions | None) -> Followers:
    """Submit them to wait for an attempt's job, and record that in the run's ledger; all or none.

    Raises UserError if the cluster refuses, or the endpoint's name is taken.
    """
    run_dir, job_id = submitted.run_dir, str(submitted.job_id)
    jobs: list[str] = []
    followers = Followers(export_job="")
    try:
        jobs.append(_submit_export(run_dir, run, job_id))
        followers = Followers(export_job=jobs[0])
        if options is not None:
            folder, name = _claim(run_dir, run, options)
            followers = replace(followers, endpoint=name)
            jobs.append(str(start_job(folder, name, run.cluster, code=run_dir.code, after=jobs[0]).job_id))
            followers = replace(followers, serve_job=jobs[1])
        LedgerWriter(run_dir, submitted.attempt, "submit").write("followers", **asdict(followers))
    except BaseException:
        for job in jobs:
            Slurm(run.cluster).cancel(job)
        if followers.endpoint:
            forget(followers.endpoint)
        raise
    return followers


def _submit_export(run_dir: RunDir, run: RunConfig, after: str) -> str:
    folder = run_dir.jobs / "export"
    spec = TaskSpec(
        name=f"export-{run.name}",
        title=f"Trainwright: export of run {run_dir.name}, once it has finished",
        function=run_module,
        arguments=(_EXPORT_MODULE, str(run_dir.path)),
        cluster=one_task(run.cluster).model_copy(update={"gpus_per_node": 0}),
        directory=run_dir.path,
        folder=folder,
        logs=folder,
        code=run_dir.code,
        after=(after,),
    )
    return str(submit_task(spec).job_id)


def _claim(run_dir: RunDir, run: RunConfig, options: ServeOptions) -> tuple[EndpointFolder, str]:
    """The endpoint's folder with its order, of a model that is not there yet."""
    name = options.name or run_dir.name
    config: dict[str, Any] = model_config(run_dir.model_config) | {"dtype": DTYPES[run.train.precision]}
    model = ServedModel(expected_export(run_dir, run.train.steps), run_dir, name, config)
    refuse_living(name, model)
    spec = make_spec(model, options, "node", run.cluster.network_interface, job_python(run.cluster))
    folder = claim(name, run_dir)
    folder.write_order(spec)
    return folder, name
