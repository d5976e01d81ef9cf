"""A job before it is submitted, as text: its start, cost, losses, intervals, binding and environment."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..launchers.estimates import Estimate
    from ..launchers.plan import JobPlan
    from ..launchers.start_estimate import StartEstimate

_ROWS = {
    "hours_at_most": "at most",
    "price_at_most": "price",
    "hours_expected": "expected",
    "price_expected": "price",
    "lost_steps": "lost",
    "lost_s": "lost time",
    "lost_steps_graceful": "graceful",
    "mtbf_h": "failures",
    "interval_s": "save every",
    "interval_steps": "that is",
    "interruptions": "interrupted",
    "hours_interrupted": "in all",
    "price_interrupted": "price",
    "price_other_tier": "elsewhere",
    "signal_lead_s": "warning",
}
"""Estimates by name, and what they are called in the first column."""


def job_lines(job: "JobPlan") -> list[str]:
    """All of it, a line for each number with its formula."""
    from ..launchers.fair_share import share_text

    lines = [f"start       {start_text(job.start)}"]
    if job.share:
        lines.append(f"fair share  {share_text(job.share)}")
    for name, label in _ROWS.items():
        if name in job.estimates:
            lines.append(f"{label:<11} {_text(job.estimates[name])}")
    lines += [f"binding     {' '.join(job.binding)}", "", "environment of the ranks"]
    for variable in job.environment:
        value = "(set there)" if variable.value is None else variable.value
        lines.append(f"  {variable.name}={value}  [{variable.source}]")
    return lines


def short_lines(job: "JobPlan") -> list[str]:
    """Two lines for those who submit."""
    numbers = job.estimates
    most, price, lost = numbers["hours_at_most"], numbers["price_at_most"], numbers["lost_steps"]
    cost = "no time limit known" if most.value is None else f"at most {_number(most)}"
    if price.value is not None:
        cost += f", price {price.value:,.2f}"
    tiers = [numbers[name].value for name in ("price_interrupted", "price_other_tier") if name in numbers]
    if len(tiers) == 2 and None not in tiers:
        cost += f" (in all about {tiers[0]:,.2f}; {tiers[1]:,.2f} on the other tier)"
    best = numbers["interval_steps"]
    advice = "" if best.value is None else f"; best would be a checkpoint every {best.value:,.0f} steps"
    return [
        f"  start {start_text(job.start)}; {cost} for each start of the job",
        f"  an end without warning loses about {lost.value:,.0f} steps, any other none{advice}",
    ]


def start_text(start: "StartEstimate") -> str:
    """When and where, or why nobody knows."""
    if start.time is None:
        return f"not known: {start.why}"
    where = f" in {start.partition}" if start.partition else ""
    preempted = f", ending jobs {start.preempts}" if start.preempts else ""
    return f"{start.time} on {start.nodes}{where}{preempted} (sbatch --test-only)"


def _text(estimate: "Estimate") -> str:
    if estimate.value is None:
        return estimate.formula
    return f"{_number(estimate)} = {estimate.formula}"


def _number(estimate: "Estimate") -> str:
    assert estimate.value is not None
    text = f"{estimate.value:,.0f}" if estimate.value >= 1000 else f"{estimate.value:.4g}"
    return f"{text} {estimate.unit}".rstrip()
