"""What a preflight found, as the ledger has it and in one line of words: pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from .preflight_findings import Finding, RankRecord, node_rates


def summarize(
    records: Sequence[RankRecord], findings: Sequence[Finding], all_reduce_gb_per_s: float | None, free_bytes: int
) -> dict[str, Any]:
    """The ledger's event, without how long it took."""
    rates = node_rates(records)
    slowest = min(rates, key=lambda host: rates[host])
    nodes = [record.node for record in records if record.node is not None]
    asked = [gpu for record in records for gpu in record.gpus or ()]
    skews = [abs(node.ahead_at_least_s + node.ahead_at_most_s) / 2 for node in nodes]
    bounds = [(node.ahead_at_most_s - node.ahead_at_least_s) / 2 for node in nodes]
    return {
        "nodes": len(rates),
        "ranks": len(records),
        "tflops": {
            "slowest": round(rates[slowest], 4),
            "median": round(median(rates.values()), 4),
            "fastest": round(max(rates.values()), 4),
            "slowest_node": slowest,
        },
        "all_reduce_gb_per_s": None if all_reduce_gb_per_s is None else round(all_reduce_gb_per_s, 4),
        "clock_skew_s": round(max(skews), 4),
        "clock_skew_known_to_s": round(max(bounds), 4),
        "free_bytes": free_bytes,
        "gpus": {"asked": len(asked), "clock_mhz": _range(gpu["clock_mhz"] for gpu in asked)} if asked else None,
        "versions": dict(nodes[0].versions),
        "findings": [asdict(finding) for finding in findings],
    }


def _range(values: Iterable[float | None]) -> list[float] | None:
    """Lowest and highest; None if none was measured."""
    measured = [value for value in values if value is not None]
    return [min(measured), max(measured)] if measured else None


def words_of(summary: Mapping[str, Any]) -> str:
    """One line for the log."""
    rates, gpus = summary["tflops"], summary["gpus"]
    parts = [
        f"{summary['nodes']} nodes, {summary['ranks']} ranks",
        f"{rates['slowest']:.3g} to {rates['fastest']:.3g} Tflop/s per rank",
        f"clocks {summary['clock_skew_s']:.3f} s apart (± {summary['clock_skew_known_to_s']:.3f})",
        f"{summary['free_bytes'] / 1e9:.1f} GB free",
        f"{gpus['asked']} GPUs say that they are well" if gpus else "health of GPUs not measured",
    ]
    if summary["all_reduce_gb_per_s"] is not None:
        parts.insert(2, f"all-reduce {summary['all_reduce_gb_per_s']:.3g} GB/s")
    found = "; ".join(f"{each['host']} {each['check']}: {each['words']}".strip() for each in summary["findings"][:5])
    return f"preflight in {summary['seconds']:.2f} s: {found or ', '.join(parts)}"
