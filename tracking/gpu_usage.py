"""GPU numbers as they are recorded, shown and merged: one list per counter, one entry per GPU; None is not measured."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from ..config.rundir import RunDir

_Numbers = tuple[float | None, ...]
NOT_MEASURED = "not measured"


@dataclass(frozen=True, kw_only=True)
class GpuUsage:
    """The GPUs of one node, or of all nodes of a run, averaged over some time. The lists are equally long."""

    util_percent: _Numbers
    memory_used_bytes: _Numbers
    memory_total_bytes: _Numbers
    power_w: _Numbers
    temperature_c: _Numbers

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """What `record` gave, read back. Raises KeyError or TypeError for what is none."""
        return cls(**{name: tuple(record[name]) for name in COUNTERS})

    @classmethod
    def mean(cls, parts: Sequence[Self], weights: Sequence[float] | None = None) -> Self:
        """The mean over `parts` of the same GPUs, by weight; what only some parts measured is the mean of those."""
        weights = weights or [1.0] * len(parts)
        return cls(
            **{
                name: tuple(
                    _mean(column, weights) for column in zip(*(getattr(part, name) for part in parts), strict=True)
                )
                for name in COUNTERS
            }
        )

    def record(self) -> dict[str, list[float | None]]:
        """For a JSON line: bytes whole, the rest to a tenth."""
        return {name: [_short(name, value) for value in getattr(self, name)] for name in COUNTERS}

    def by_name(self) -> dict[str, float]:
        """Flat names: the mean of all GPUs (`gpu/power_w`) and each one (`gpu/0/power_w`); nothing of what is None."""
        named = {f"gpu/{name}": value for name in COUNTERS if (value := self.over_all(name)) is not None}
        for name in COUNTERS:
            values = enumerate(getattr(self, name))
            named |= {f"gpu/{number}/{name}": value for number, value in values if value is not None}
        return named

    def over_all(self, name: str) -> float | None:
        """The mean of a counter over the GPUs that told it; None if none did."""
        values = getattr(self, name)
        return _mean(values, [1.0] * len(values))

    def text(self) -> str:
        """A few words: `util 87 %, 61.2 GiB, 512 W`; for several GPUs, their mean."""
        util, memory, power = (self.over_all(name) for name in ("util_percent", "memory_used_bytes", "power_w"))
        if util is None and memory is None and power is None:
            return NOT_MEASURED
        words = [
            "util not measured" if util is None else f"util {util:.0f} %",
            "memory not measured" if memory is None else f"{memory / 2**30:.1f} GiB",
            "power not measured" if power is None else f"{power:.0f} W",
        ]
        count = len(self.util_percent)
        return ", ".join(words) + (f" (mean of {count} GPUs)" if count > 1 else "")

    def brief(self) -> str:
        """For a line that has little room: `GPU 87 % 61.2 GiB 512 W`, without what is not measured."""
        shapes: dict[str, Callable[[float], str]] = {
            "util_percent": lambda value: f"{value:.0f} %",
            "memory_used_bytes": lambda value: f"{value / 2**30:.1f} GiB",
            "power_w": lambda value: f"{value:.0f} W",
        }
        words = [shape(value) for name, shape in shapes.items() if (value := self.over_all(name)) is not None]
        return " ".join(["GPU", *words]) if words else ""


COUNTERS = tuple(field.name for field in fields(GpuUsage))


def read_usage(run_dir: RunDir, attempt: int, last_s: float | None = None) -> GpuUsage | None:
    """The GPUs of all nodes of an attempt, averaged over its whole time or each node's last seconds.

    None if nothing was measured.
    """
    nodes = []
    for path in sorted(run_dir.telemetry.glob(run_dir.gpus(attempt, 0).name.replace("-00000.", "-*."))):
        windows = list(_windows(path))
        end = windows[-1]["time"] if windows else 0.0
        kept = [window for window in windows if last_s is None or window["time"] > end - last_s]
        if kept:
            parts = [GpuUsage.from_record(window) for window in kept]
            nodes.append(GpuUsage.mean(parts, [window["seconds"] for window in kept]))
    if not nodes:
        return None
    return GpuUsage(**{name: tuple(value for node in nodes for value in getattr(node, name)) for name in COUNTERS})


def _windows(path: Path) -> Iterable[dict[str, Any]]:
    """The windows of one node's file; its other lines, and a torn last one, are left out."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and {*COUNTERS, "time", "seconds"} <= record.keys():
            yield record


def _mean(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None


def _short(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    return round(value) if name.endswith("_bytes") else round(value, 1)
