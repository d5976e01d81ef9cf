"""Runs tests in full, where `make test` runs a part of their cases, and says which passed: results that are kept."""

import argparse
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .storage.report import machine

ROOT = Path(__file__).parents[1]


class WholeRun:
    """One run of pytest over whole matrices."""

    def __init__(self, files: Sequence[str], arguments: Sequence[str]) -> None:
        """`arguments` are further ones for pytest."""
        began = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", "-rpP", "--timeout", "7200", *files, *arguments]
        variables = {**os.environ, "WHOLE_MATRIX": "1", "OMP_NUM_THREADS": "1"}
        run = subprocess.run(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True, check=False)
        self.output, self.exit_code = run.stdout, run.returncode
        self.lines = run.stdout.splitlines()
        self._seconds = time.monotonic() - began

    def passed(self) -> list[str]:
        """Each test once, with its number of cases."""
        names = [re.sub(r"\[.*", "", line.split("::", 1)[1]) for line in self.lines if line.startswith("PASSED ")]
        return [f"passed: {name}" + (f", {count} cases" if count > 1 else "") for name, count in Counter(names).items()]

    def said(self, word: str) -> list[str]:
        """Lines that tests printed, beginning with `word`."""
        return [line for line in self.lines if line.startswith(f"{word} ")]

    def add_to(self, log: Path, title: str, said: Sequence[str], *, anew: bool) -> None:
        """Lines into a log that is begun anew, or goes on."""
        head = "\n".join([title, *machine().splitlines()[:3], "", ""])
        before = head if anew else log.read_text(encoding="utf-8")
        log.write_text(before + "\n".join([*said, self.ending(), ""]), encoding="utf-8")

    def ending(self) -> str:
        """How many passed, and how long it took."""
        end = next((line for line in reversed(self.lines) if re.search(r"\d+ (passed|failed)", line)), "no test ran")
        return f"{re.sub(r' in [0-9.]+s.*', '', end).strip('= ')} in {self._seconds:.0f} s"


def numbered_parser(description: str | None, what: str, count: int) -> argparse.ArgumentParser:
    """Options of tests that are drawn from a seed and a number, so that they go on where they were stopped."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(f"--{what}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--first", type=int, default=0, help="number of the first one; later ones add to the log")
    return parser


def run_numbered(test: str, word: str, arguments: argparse.Namespace, log: str, title: str) -> int:
    """Run tests/integration/test_TEST.py, told of the arguments as $TEST_...; keep the lines that begin with `word`."""
    print(f"seed {arguments.seed}", flush=True)
    os.environ |= {f"{test.upper()}_{name.upper()}": str(value) for name, value in vars(arguments).items()}
    run = WholeRun([f"tests/integration/test_{test}.py"], [])
    said = run.said(word)
    print(run.output if run.exit_code else "\n".join(said))
    title = f"{title}, seed {arguments.seed}"
    run.add_to(ROOT / "benchmarks" / "results" / log, title, said, anew=not arguments.first)
    return run.exit_code
