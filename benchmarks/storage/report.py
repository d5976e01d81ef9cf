"""Tables that the benchmarks print: every number, and whether the promised figure was reached."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass

from .timing import Comparison

_PACKAGES = (
    *("numpy", "torch", "tokenizers", "google-crc32c", "zarr", "tensorstore"),
    *("litdata", "mosaicml-streaming", "megatron-core", "datatrove"),
)


@dataclass(frozen=True)
class Row:
    """One line of a table of rates."""

    what: str
    result: Comparison | None
    """None: could not be measured; `what` says why."""
    wanted: float | None = None
    """Ratio that is promised; None: shown for comparison only."""
    by: str = "cpu"
    """Which ratio is promised: `cpu` or `wall`."""

    @property
    def good(self) -> bool:
        """Whether the figure was reached, if there is one."""
        if self.wanted is None:
            return True
        if self.result is None:
            return False
        return (self.result.cpu_ratio if self.by == "cpu" else self.result.wall_ratio) >= self.wanted


def rates(title: str, rows: Sequence[Row]) -> bool:
    """Print a table of rates in million tokens per second; whether all figures were reached."""
    print(f"\n{title}\nMtok/s per CPU second | per second of wall time; ratio = ours / other, medians")
    head = f"{'':54}{'ours':>15}{'other':>15}{'CPU ratio':>11}{'(range)':>17}{'wall ratio':>12}  figure"
    print(head)
    for row in rows:
        print(_line(row))
    return all(row.good for row in rows)


def _line(row: Row) -> str:
    wanted = "" if row.wanted is None else f">= {row.wanted:g} ({row.by}) {'reached' if row.good else 'MISSED'}"
    if row.result is None:
        return f"{row.what:<54}{'not measured':>30}  {wanted}"
    result = row.result
    ours, theirs = _rate(result.ours.cpu, result.ours.wall), _rate(result.theirs.cpu, result.theirs.wall)
    spread = f"({result.cpu_range[0]:.2f}-{result.cpu_range[1]:.2f})"
    ratios = f"{result.cpu_ratio:>11.2f}{spread:>17}{result.wall_ratio:>12.2f}"
    return f"{row.what:<54}{ours:>15}{theirs:>15}{ratios}  {wanted}"


def _rate(cpu: float, wall: float) -> str:
    digits = 0 if min(cpu, wall) >= 100 else 1 if min(cpu, wall) >= 1 else 3
    return f"{cpu:.{digits}f} | {wall:.{digits}f}"


def limits(title: str, rows: Sequence[tuple[str, float, str, float | None]]) -> bool:
    """Print (what, number, unit, most that is allowed or None); whether all keep within."""
    print(f"\n{title}")
    good = True
    for what, number, unit, limit in rows:
        within = limit is None or number <= limit
        good &= within
        figure = "" if limit is None else f"<= {limit:g} {unit} {'reached' if within else 'MISSED'}"
        print(f"{what:<80}{number:>10.1f} {unit:<5}{figure}".rstrip())
    return good


def machine() -> str:
    """Processor, memory, versions and load, in a few lines."""
    return "\n".join(
        [
            f"date: {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}",
            f"machine: {_field('/proc/cpuinfo', 'model name')}, {os.cpu_count()} cores, "
            f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / 2**20:.0f} GiB, Linux {platform.release()}",
            f"load average at start: {' '.join(f'{load:.2f}' for load in os.getloadavg())}",
            f"Python {platform.python_version()}, " + ", ".join(_version(name) for name in _PACKAGES),
        ]
    )


def _field(path: str, name: str) -> str:
    with open(path, encoding="utf-8") as file:
        return next((line.split(":", 1)[1].strip() for line in file if line.startswith(name)), "0 unknown")


def _version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} not installed"
