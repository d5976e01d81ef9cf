"""What a run costs and loses, before it is submitted: pure arithmetic, each number with its formula.

The checkpoint interval is the one that loses least time to saving and repeating together: J. W. Young, "A first order
approximation to the optimum checkpoint interval", CACM 17(9), 1974; where saving takes more than a hundredth of the
time between failures, the higher order of J. T. Daly, "A higher order estimate of the optimum checkpoint interval for
restart dumps", FGCS 22(3), 2006, equation 37.
"""

import math
from dataclasses import dataclass, replace

from ..config.cluster import ClusterConfig
from ..config.run import RunConfig
from ..tracking.timings import Timings

PUBLISHED_MTBF_NODE_HOURS = 6300.0
"""Hours between failures of one node with 8 GPUs: 419 unexpected interruptions of 2,048 nodes in 54 days ("The Llama 3
Herd of Models", 2024, section 3.3.4)."""
_SMALL = 0.01
NOT_MEASURED = "not measured"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One number, and how it comes about."""

    value: float | None
    """None: not known."""
    unit: str
    formula: str
    """With its numbers; where the value is not known, what is missing."""


def estimates(run: RunConfig, timings: Timings, limit_s: float | None) -> dict[str, Estimate]:
    """All numbers by name. `limit_s` is the job's time limit in seconds; None: it has none, or it is not known."""
    run = run.model_copy(update={"cluster": run.cluster.on_tier()})
    numbers = {
        **_measured(timings),
        **_cost(run, timings, limit_s),
        **_loss(run, timings),
        **_interval(run.cluster, timings),
    }
    return {**numbers, **_with_interruptions(run.cluster, numbers, _expected_s(run, timings)[0])}


def optimum_interval_s(save_s: float, mtbf_s: float) -> float:
    """Seconds of work between two saves: Young's formula, Daly's where saves are not short against `mtbf_s`."""
    first = math.sqrt(2 * save_s * mtbf_s)
    if save_s <= _SMALL * mtbf_s:
        return first
    if save_s >= 2 * mtbf_s:
        return mtbf_s
    part = save_s / (2 * mtbf_s)
    return first * (1 + math.sqrt(part) / 3 + part / 9) - save_s


def _measured(timings: Timings) -> dict[str, Estimate]:
    words = {
        "step_s": (timings.step_s, "median step of earlier attempts, or --step-time-s"),
        "save_s": (timings.save_s, "median save of earlier attempts"),
        "restart_s": (timings.restart_s, "median time from start to first step of earlier attempts"),
    }
    return {
        name: Estimate(value=value, unit="s", formula=text if value is not None else f"{NOT_MEASURED}: {text}")
        for name, (value, text) in words.items()
    }


def _cost(run: RunConfig, timings: Timings, limit_s: float | None) -> dict[str, Estimate]:
    cluster = run.cluster
    (per_node, what), price, field = _devices(cluster)
    devices = cluster.nodes * per_node
    machine = f"{cluster.nodes} nodes x {per_node} {what}s"
    if limit_s is None:
        most = Estimate(value=None, unit=f"{what}-hours", formula="not known: no time limit (cluster.time_limit)")
    else:
        hours = limit_s / 3600
        most = Estimate(value=devices * hours, unit=f"{what}-hours", formula=f"{machine} x {hours:g} h time limit")
    wall_s, terms = _expected_s(run, timings)
    if wall_s is None:
        likely = Estimate(value=None, unit=f"{what}-hours", formula=terms)
    else:
        likely = Estimate(value=devices * wall_s / 3600, unit=f"{what}-hours", formula=f"{machine} x ({terms})")
    return {
        "hours_at_most": most,
        "price_at_most": _price(most, price, field),
        "hours_expected": likely,
        "price_expected": _price(likely, price, field),
    }


def _devices(cluster: ClusterConfig) -> tuple[tuple[int, str], float | None, str]:
    """Devices of a node and what they are, the price of an hour, and the field that has it."""
    section = "cluster.preemptible" if cluster.tier == "preemptible" else "cluster"
    if cluster.gpus_per_node:
        return (cluster.gpus_per_node, "GPU"), cluster.price_per_gpu_hour, f"{section}.price_per_gpu_hour"
    cores = cluster.ranks_per_node * cluster.cpus_per_rank
    return (cores, "CPU"), cluster.price_per_cpu_hour, f"{section}.price_per_cpu_hour"


def _expected_s(run: RunConfig, timings: Timings) -> tuple[float | None, str]:
    """Wall-clock seconds of the whole run without interruptions, and the terms; what was not measured is left out."""
    if timings.step_s is None:
        return None, f"{NOT_MEASURED}: the time of a step (--step-time-s, or submit a few steps first)"
    steps, every = run.train.steps, run.checkpoint.every_steps
    wall_s, terms = steps * timings.step_s, f"{steps} steps x {timings.step_s:g} s"
    saves = math.ceil(steps / every) if every else 1
    if timings.save_s is not None:
        wall_s += saves * timings.save_s
        terms += f" + {saves} saves x {timings.save_s:g} s"
    if timings.restart_s is not None:
        wall_s += timings.restart_s
        terms += f" + {timings.restart_s:g} s start"
    return wall_s, terms


def _price(hours: Estimate, price: float | None, field: str) -> Estimate:
    """In the currency of the field."""
    if price is None:
        return Estimate(value=None, unit="", formula=f"not known: {field} is not given")
    if hours.value is None:
        return Estimate(value=None, unit="", formula=hours.formula)
    return Estimate(value=hours.value * price, unit="", formula=f"{hours.value:g} {hours.unit} x {price:g} ({field})")


def _loss(run: RunConfig, timings: Timings) -> dict[str, Estimate]:
    """What an interruption without a warning costs: on average half an interval is done again."""
    every = min(run.checkpoint.every_steps or run.train.steps, run.train.steps)
    steps = every / 2
    missing = [
        name
        for name, value in (("step", timings.step_s), ("save", timings.save_s), ("start", timings.restart_s))
        if value is None
    ]
    if timings.step_s is None or timings.save_s is None or timings.restart_s is None:
        lost = Estimate(value=None, unit="s", formula=f"{NOT_MEASURED}: the time of a {' and of a '.join(missing)}")
    else:
        terms = f"{steps:g} steps x {timings.step_s:g} s + {timings.save_s:g} s save + {timings.restart_s:g} s start"
        lost = Estimate(value=steps * timings.step_s + timings.save_s + timings.restart_s, unit="s", formula=terms)
    return {
        "lost_steps": Estimate(value=steps, unit="steps", formula=f"half of {every} steps between checkpoints"),
        "lost_s": lost,
        "lost_steps_graceful": Estimate(value=0, unit="steps", formula="all ranks save the step that they are in"),
    }


def _with_interruptions(
    cluster: ClusterConfig, numbers: dict[str, Estimate], wall_s: float | None
) -> dict[str, Estimate]:
    """The whole run, with every failure and preemption that it may expect, none of them with a warning."""
    hours, lost_s = numbers["hours_expected"], numbers["lost_s"].value
    mtbf_s = (numbers["mtbf_h"].value or 0) * 3600
    if wall_s is None or hours.value is None:
        problem = hours.formula
    elif lost_s is None:
        problem = numbers["lost_s"].formula
    elif lost_s >= mtbf_s:
        problem = f"not known: {lost_s:g} s are lost by each, and they come every {mtbf_s:g} s; save more often"
    else:
        count = wall_s / (mtbf_s - lost_s)  # what is done again may be interrupted too
        terms = f"{wall_s:g} s / ({mtbf_s:g} s between failures - {lost_s:g} s lost by each)"
        value = hours.value * (1 + count * lost_s / wall_s)
        words = f"{hours.value:g} {hours.unit} + {count:g} interruptions x {lost_s:g} s of all"
        total = Estimate(value=value, unit=hours.unit, formula=words)
        _, price, field = _devices(cluster)
        return {
            "interruptions": Estimate(value=count, unit="", formula=terms),
            "hours_interrupted": total,
            "price_interrupted": _price(total, price, field),
        }
    unknown = Estimate(value=None, unit="", formula=problem)
    return dict.fromkeys(("interruptions", "hours_interrupted", "price_interrupted"), unknown)


def _interval(cluster: ClusterConfig, timings: Timings) -> dict[str, Estimate]:
    node_hours = cluster.mtbf_node_hours or PUBLISHED_MTBF_NODE_HOURS
    source = "cluster.mtbf_node_hours" if cluster.mtbf_node_hours else "published: Llama 3"
    mtbf_h = node_hours / cluster.nodes
    formula = f"{node_hours:g} h ({source}) / {cluster.nodes} nodes"
    preempted_h = cluster.preemptible.hours_between_preemptions if cluster.preemptible else None
    if cluster.tier == "preemptible" and preempted_h:
        mtbf_h = 1 / (1 / mtbf_h + 1 / preempted_h)
        formula = f"1 / (1 / ({formula}) + 1 / {preempted_h:g} h (cluster.preemptible.hours_between_preemptions))"
    job = Estimate(value=mtbf_h, unit="h", formula=formula)
    if timings.save_s is None:
        missing = Estimate(value=None, unit="s", formula=f"{NOT_MEASURED}: the time of a save")
        return {"mtbf_h": job, "interval_s": missing, "interval_steps": replace(missing, unit="steps")}
    mtbf_s = mtbf_h * 3600
    kind = "Young" if timings.save_s <= _SMALL * mtbf_s else "Daly, higher order"
    terms = f"sqrt(2 x {timings.save_s:g} s save x {mtbf_s:g} s between failures), {kind}"
    best = optimum_interval_s(timings.save_s, mtbf_s)
    steps = Estimate(value=None, unit="steps", formula=f"{NOT_MEASURED}: the time of a step")
    if timings.step_s:
        count = max(1, round(best / timings.step_s))
        steps = Estimate(value=count, unit="steps", formula=f"{best:g} s / {timings.step_s:g} s per step")
    return {"mtbf_h": job, "interval_s": Estimate(value=best, unit="s", formula=terms), "interval_steps": steps}
