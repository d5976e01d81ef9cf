"""Elastic resume, trial after trial: killed at a random moment, gone on with in another layout, as `make test-elastic`.

Run: make test-elastic ARGS="--trials 50 --seed N". The log, benchmarks/results/elastic.txt, gets a line for each trial,
so that trials that were stopped go on: the same seed, --first. Exit code 1 if one was not passed.
"""

import argparse
import os
import random
import sys

from .whole_tests import ROOT, WholeRun


def main() -> int:
    """Run trials, and keep what they said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--first", type=int, default=0, help="number of the first trial; later ones add to the log")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    os.environ |= {f"ELASTIC_{name.upper()}": str(value) for name, value in vars(arguments).items()}
    run = WholeRun(["tests/integration/test_elastic.py"], [])
    said = run.said("trial")
    print(run.output if run.exit_code else "\n".join(said))
    title = f"Elastic resume, seed {arguments.seed}; run by `make test-elastic`."
    run.add_to(ROOT / "benchmarks" / "results" / "elastic.txt", title, said, anew=not arguments.first)
    return run.exit_code


if __name__ == "__main__":
    sys.exit(main())
