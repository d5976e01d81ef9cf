"""Every test of the data order, of which `make test` runs a part: bijection, quotas, uniformity, ranks and batch sizes.

Run: make test-order. It writes benchmarks/results/order.txt; exit code 1 if a test fails.
"""

import re
import sys
from collections import defaultdict
from importlib.metadata import version
from statistics import mean, stdev

from .storage.report import machine
from .whole_tests import ROOT, WholeRun

RESULTS = ROOT / "benchmarks" / "results" / "order.txt"
TESTS = (
    *("test_order.py", "test_order_bijection.py", "test_order_uniformity.py"),
    *("test_mixture.py", "test_quotas.py", "test_stages.py", "test_advice.py"),
)
FILES = (*(f"tests/unit/storage/loading/{name}" for name in TESTS), "tests/unit/parallelism/test_batches.py")
_UNIFORMITY = re.compile(r"^uniformity: (.*): chi-squared \d+, (\d+) degrees, ([-+][\d.]+) sigma$")


def main(arguments: list[str]) -> int:
    """Run the tests, with further arguments for pytest; only a run of all of them is kept."""
    run = WholeRun(FILES, ["--hypothesis-show-statistics", *arguments])
    lines = run.lines
    head = ["Tests of the data order, run by `make test-order`.", *machine().splitlines()[:3], _versions(), ""]
    text = "\n".join([*head, *run.passed(), *_examples(lines), "", *_said(lines), run.ending(), ""])
    print(run.output if run.exit_code else text)
    if not run.exit_code and not arguments:
        RESULTS.write_text(text, encoding="utf-8")
    return run.exit_code


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in ("numpy", "hypothesis", "pytest"))


def _examples(lines: list[str]) -> list[str]:
    """How many examples each test of hypothesis went through."""
    found, name = [], ""
    for line in lines:
        name = line.rpartition("::")[2].rstrip(":") if re.match(r"tests/\S+::\S+:$", line) else name
        count = re.search(r"(\d+) passing examples, 0 failing examples", line)
        if count:
            found.append(f"examples: {name}: {count[1]} of hypothesis")
    return found


def _said(lines: list[str]) -> list[str]:
    """What the tests printed; of tables of one kind how many, and where their chi-squared lies."""
    said = [line for line in lines if line.startswith(("bijection: ", "quotas: ", "order: "))]
    tables: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        found = _UNIFORMITY.match(line)
        if found and "no shuffle" not in found[1]:
            tables[_kind(found[1])].append(float(found[3]))
    for kind, sigmas in tables.items():
        spread = (
            f"mean {mean(sigmas):+.2f}, deviation {stdev(sigmas):.2f}, from {min(sigmas):+.1f} to {max(sigmas):+.1f}"
        )
        said.append(f"uniformity: {kind}: {len(sigmas)} tables; chi-squared in sigmas from its mean: {spread}")
    return said


def _kind(what: str) -> str:
    """The kind of a table, without its sizes and seeds."""
    if "position " in what and " in " in what:
        return f"a position and its sample in many {what.rpartition(' ')[2]}"
    return ", ".join(part for part in what.split(", ") if not re.match(r"[\d,]+ samples|seed |windows of |\d+$", part))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
