"""What would be submitted: layout, ranks, sizes, data and the rendered script. Nothing is written."""

from dataclasses import dataclass
from pathlib import Path

from ..config.errors import UserError
from ..config.layout import Layout, layout_of
from ..config.model import ModelShape, read_model
from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..storage.loading.staging import staged_bytes
from .cluster_limits import require_possible_if_reached
from .data_plan import Share, shares_of, warnings_of
from .job import render_script
from .submission import training_task
from .work_tree import read_work_tree


@dataclass(frozen=True, kw_only=True)
class RankPlace:
    """One rank: its node (0, 1, ...), its place on each axis, and the layers that it holds."""

    rank: int
    node: int
    tensor: int
    data: int
    pipeline: int
    first_layer: int
    last_layer: int
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
    """The batch script; None where this machine runs the ranks itself."""


def plan_run(run: RunConfig) -> Plan:
    """Work out a plan; UserError if model or layout break a rule."""
    model = read_model(Path(run.model))
    layout = layout_of(run, model)
    if run.cluster.scheduler == "slurm":
        require_possible_if_reached(run.cluster)
    run_dir = RunDir(Path(run.runs) / run.name)
    shares = shares_of(run)
    tree = read_work_tree(Path.cwd(), Path(run.runs))
    tokens_per_step = run.train.global_batch_size * run.data.sequence_length
    return Plan(
        name=run.name,
        run_dir=str(run_dir.path),
        scheduler=run.cluster.scheduler,
        layout=layout.sizes(),
        ranks=_ranks(run, layout, model),
        parameters=model.num_parameters(),
        active_parameters=model.num_active_parameters(),
        tokens_per_step=tokens_per_step,
        steps=run.train.steps,
        tokens=tokens_per_step * run.train.steps,
        data=shares,
        warnings=warnings_of(shares, run.data),
        stage=run.data.stage_to,
        staged_bytes=_staged_bytes(run),
        commit=tree.commit if tree else None,
        uncommitted=tree.changed if tree else [],
        left_out=tree.left_out if tree else [],
        script=render_script(training_task(run_dir, 1, run)) if run.cluster.scheduler == "slurm" else None,
    )


def _staged_bytes(run: RunConfig) -> int | None:
    try:
        return staged_bytes(run.data)
    except UserError:  # `submit` says why
        return None


def _ranks(run: RunConfig, layout: Layout, model: ModelShape) -> list[RankPlace]:
    places = []
    for rank in range(layout.world_size):
        place = layout.coordinates(rank)
        layers = layout.layers_of(place.pipeline, model.num_layers)
        experts = layout.experts_of(place, model.experts.num_experts) if model.experts else None
        places.append(
            RankPlace(
                rank=rank,
                node=rank // run.cluster.ranks_per_node,
                tensor=place.tensor,
                data=place.data,
                pipeline=place.pipeline,
                first_layer=layers.start,
                last_layer=layers.stop - 1,
                first_expert=experts.start if experts else None,
                last_expert=experts.stop - 1 if experts else None,
            )
        )
    return places
