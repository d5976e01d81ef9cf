"""Every fault of the data path, of which `make test` causes a part: kills while building, damage, full disks, servers.

Run: make test-data-faults. It writes benchmarks/results/data_faults.txt; exit code 1 if a test fails.
"""

import re
import sys

from .storage.report import machine
from .whole_tests import ROOT, WholeRun

RESULTS = ROOT / "benchmarks" / "results" / "data_faults.txt"
FILES = (
    *(f"tests/unit/storage/building/test_{name}.py" for name in ("build_resume", "build_damage", "build_failures")),
    *(f"tests/unit/storage/tokens/test_{name}.py" for name in ("reader", "verify", "repair", "loss_mask", "objects")),
    *(f"tests/unit/storage/loading/test_{name}.py" for name in ("repairs", "copying", "staging")),
    "tests/unit/storage/building/test_append.py",
    *(f"tests/integration/test_{name}.py" for name in ("build_jobs", "bad_chunks", "object_runs")),
)


def main(arguments: list[str]) -> int:
    """Run the tests, with further arguments for pytest; only a run of all of them is kept."""
    run = WholeRun(FILES, ["-n", "2", *arguments])
    head = ["Faults of the data path, run by `make test-data-faults`.", *machine().splitlines()[:3], ""]
    said = [line for line in run.lines if re.match(r"(kills?|killed|faults?): ", line)]
    text = "\n".join([*head, *run.passed(), "", *said, run.ending(), ""])
    print(run.output if run.exit_code else text)
    if not run.exit_code and not arguments:
        RESULTS.write_text(text, encoding="utf-8")
    return run.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
