"""Random faults over long runs on a real Slurm of four nodes, as `make soak` runs them.

Run: make soak ARGS="--campaigns 20 --seed N [--engine megatron]". Each campaign is a run of its own with ten faults;
the log, benchmarks/results/soak.txt (with megatron-core soak_megatron.txt), gets a line for each, so that a soak that
was stopped goes on: the same seed, --first. Exit code 1 if a fault was not survived.
"""

import argparse
import os
import random
import sys

from .whole_tests import ROOT, WholeRun

RESULTS = ROOT / "benchmarks" / "results"


def main() -> int:
    """Run campaigns, and keep what they said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--campaigns", type=int, default=20, help="runs of ten faults each")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--first", type=int, default=0, help="number of the first campaign; later ones add to the log")
    parser.add_argument("--engine", choices=("toy", "megatron"), default="toy", help="what computes between faults")
    arguments = parser.parse_args()
    log = RESULTS / ("soak.txt" if arguments.engine == "toy" else "soak_megatron.txt")
    print(f"seed {arguments.seed}", flush=True)
    os.environ |= {f"SOAK_{name.upper()}": str(value) for name, value in vars(arguments).items()}
    run = WholeRun(["tests/integration/test_soak.py"], [])
    said = run.said("campaign")
    print(run.output if run.exit_code else "\n".join(said))
    title = f"Random faults, engine {arguments.engine}, seed {arguments.seed}; run by `make soak`."
    run.add_to(log, title, said, anew=not arguments.first)
    return run.exit_code


if __name__ == "__main__":
    sys.exit(main())
