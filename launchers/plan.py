"""What would be submitted: layout, ranks, sizes, data and the rendered script. Nothing is written."""

from dataclasses import dataclass, replace
from pathlib import Path

from ..config.certificates import proof
from ..config.errors import UserError
from ..config.layout import Layout
from ..config.layout_rules import layout_of
from ..config.model import ModelShape
from ..config.model_reader import read_model
from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..config.unwise import unwise
from ..storage.loading.staging import staged_bytes
from ..tracking.timings import Timings, timings_of
from .cluster_limits import PATIENCE_S, reached, require_possible_if_reached, time_limit_s
from .data_plan import Share, shares_of, warnings_of
from .estimates import Estimate, estimates
from .fair_share import FairShare, read_share
from .job import render_script, script_facts
from .job_environment import Variable, job_environment
from .lead import lead_and_formula
from .script import binding
from .start_estimate import StartEstimate, start_estimate
from .submission import training_task
from .work_tree import read_work_tree


@dataclass(frozen=True, kw_only=True)
class RankPlace:
    """One rank: its node (0, 1, ...), its place on each axis, and the layers that it holds."""

    rank: int
    node: int
    tensor: int
    context: int
    data: int
    pipeline: int
    layers: list[tuple[int, int]]
    """First and last layer of each chunk that it holds."""
    first_expert: int | None
    last_expert: int | None
    """Experts that it holds of each layer; None if the model has none."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run before it is submitted."""

    name: str
    run_dir: str
    """Where it would go, unless the name is taken."""
    scheduler: str
    layout: dict[str, int]
    proof: str | None
    """Whether verify-layout has shown that this layout computes what one rank computes; None for one rank."""
    ranks: list[RankPlace]
    parameters: int
    active_parameters: int
    """Weights that one token passes through: fewer than `parameters` with experts."""
    tokens_per_step: int
    steps: int
    tokens: int
    data: list[Share]
    """What each stage reads of each store."""
    warnings: list[str]
    """What is allowed, but rarely meant."""
    stage: str | None
    """Folder of each node into which data.stage_to copies the stores."""
    staged_bytes: int | None
    """Bytes of these copies on each node; None without data.stage_to, or where this machine cannot see the stores."""
    commit: str | None
    """What is checked out in the git work tree here; None without one."""
    uncommitted: list[str]
    """Files that are not committed, and will be kept as a patch."""
    left_out: list[str]
    """Untracked files that the patch will not have: large, or named like files with keys."""
    script: str | None
    """The batch script; None where this machine runs the ranks itself, and then it has none of what follows."""
    job: "JobPlan | None"


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """What Slurm would do with a run, and what that costs."""

    binding: list[str]
    """Options of srun that say which cores, memory and GPUs each rank gets."""
    environment: list[Variable]
    """What the ranks get; secrets are masked."""
    start: StartEstimate
    share: FairShare | None
    """This user's fair share, where the site's priorities depend on it."""
    estimates: dict[str, Estimate]
    """Costs, losses and intervals by name."""


def plan_run(run: RunConfig, step_time_s: float | None = None) -> Plan:
    """Work out a plan; UserError if model or layout break a rule. `step_time_s` replaces what was measured."""
    model = read_model(Path(run.model))
    layout = layout_of(run, model)
    if run.cluster.scheduler == "slurm":
        require_possible_if_reached(run.cluster.on_tier())
    run_dir = RunDir(Path(run.runs) / run.name)
    shares = shares_of(run)
    tree = read_work_tree(Path.cwd(), Path(run.runs))
    script = render_script(training_task(run_dir, 1, run)) if run.cluster.scheduler == "slurm" else None
    tokens_per_step = run.train.global_batch_size * run.data.sequence_length
    return Plan(
        name=run.name,
        run_dir=str(run_dir.path),
        scheduler=run.cluster.scheduler,
        layout=layout.sizes(),
        proof=proof(run, model),
        ranks=_ranks(run, layout, model),
        parameters=model.num_parameters(),
        active_parameters=model.num_active_parameters(),
        tokens_per_step=tokens_per_step,
        steps=run.train.steps,
        tokens=tokens_per_step * run.train.steps,
        data=shares,
        warnings=[*unwise(run, model, layout), *warnings_of(shares, run.data)],
        stage=run.data.stage_to,
        staged_bytes=_staged_bytes(run),
        commit=tree.commit if tree else None,
        uncommitted=tree.changed if tree else [],
        left_out=tree.left_out if tree else [],
        script=script,
        job=plan_job(run, run_dir, script, step_time_s) if script else None,
    )


def plan_job(
    run: RunConfig, run_dir: RunDir, script: str, step_time_s: float | None = None, patience_s: float = PATIENCE_S
) -> JobPlan:
    """What is known of a run's job before it is submitted; `patience_s` is for Slurm's answer about its start."""
    timings = timings_of(run_dir, run)
    if step_time_s is not None:
        timings = replace(timings, step_s=step_time_s)
    if reached(run.cluster):
        start = start_estimate(run.cluster, script, patience_s)
    else:
        start = StartEstimate(time=None, why="no Slurm was reached from here")
    return JobPlan(
        binding=binding(run.cluster),
        environment=job_environment(script_facts(training_task(run_dir, 1, run))),
        start=start,
        share=read_share(run.cluster.on_tier()),
        estimates=_estimates(run, timings),
    )


def _estimates(run: RunConfig, timings: Timings) -> dict[str, Estimate]:
    lead, formula = lead_and_formula(timings.longest_save_s, run)
    found = estimates(run, timings, time_limit_s(run.cluster.on_tier()))
    if run.cluster.preemptible is not None:
        found["price_other_tier"] = _on_the_other_tier(run, timings)
    return {**found, "signal_lead_s": Estimate(value=lead, unit="s", formula=formula)}


def _on_the_other_tier(run: RunConfig, timings: Timings) -> Estimate:
    tier = "standard" if run.cluster.tier == "preemptible" else "preemptible"
    other = run.model_copy(update={"cluster": run.cluster.model_copy(update={"tier": tier})})
    price = estimates(other, timings, None)["price_interrupted"]
    return replace(price, formula=f"cluster.tier={tier}: {price.formula}")


def _staged_bytes(run: RunConfig) -> int | None:
    try:
        return staged_bytes(run.data)
    except UserError:  # `submit` says why
        return None


def _ranks(run: RunConfig, layout: Layout, model: ModelShape) -> list[RankPlace]:
    places = []
    for rank in range(layout.world_size):
        place = layout.coordinates(rank)
        experts = layout.experts_of(place, model.experts.num_experts) if model.experts else None
        places.append(
            RankPlace(
                rank=rank,
                node=rank // run.cluster.ranks_per_node,
                tensor=place.tensor,
                context=place.context,
                data=place.data,
                pipeline=place.pipeline,
                layers=[(span.start, span.stop - 1) for span in layout.chunks_of(place.pipeline, model.num_layers)],
                first_expert=experts.start if experts else None,
                last_expert=experts.stop - 1 if experts else None,
            )
        )
    return places
