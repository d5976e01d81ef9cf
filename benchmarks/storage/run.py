"""Runs the benchmarks of the data path one after the other and writes benchmarks/results/storage.txt.

Run: make bench-storage
"""

import subprocess
import sys
from pathlib import Path

from .report import machine

ALL = (
    "read_samples",
    "read_peers",
    "whole_loader",
    "first_batch",
    "first_touch",
    "write_tokens",
    "tokenize_text",
    "memory",
    "cold_reads",
)
RESULTS = Path(__file__).parents[1] / "results" / "storage.txt"
_HEAD = """\
Benchmarks of the data path, run by `make bench-storage`; peers are pinned in requirements/benchmarks.txt.
Candidate and baseline take turns in one process. Warm data lies in memory (tmpfs) unless a table says otherwise.
"""


def main(arguments: list[str]) -> int:
    """Run all benchmarks, or those named; 1 if one misses its figure or fails. Only a run of all is kept."""
    names = [argument for argument in arguments if argument in ALL] or list(ALL)
    options = [argument for argument in arguments if argument not in ALL]
    text = _HEAD + machine() + "\n"
    print(text, flush=True)
    missed = []
    for name in names:
        command = [sys.executable, "-W", "ignore", "-m", f"{__package__}.{name}", *options]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        print(run.stdout, flush=True)
        text += run.stdout
        if run.returncode:
            missed.append(name)
            text += f"\n{name}: exit code {run.returncode}\n"
    text += f"\n{'Missed: ' + ', '.join(missed) if missed else 'All figures were reached.'}\n"
    print(text.splitlines()[-1])
    if names == list(ALL) and not options:
        RESULTS.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
