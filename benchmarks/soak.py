"""Random faults over long runs on a real Slurm of four nodes, as `make soak` runs them.

Run: make soak ARGS="--campaigns 20 --seed N [--engine megatron]". Each campaign is a run of its own with ten faults;
the log, benchmarks/results/soak.txt (with megatron-core soak_megatron.txt), gets a line for each, so that a soak that
was stopped goes on: the same seed, --first. Exit code 1 if a fault was not survived.
"""

import sys

from .whole_tests import numbered_parser, run_numbered


def main() -> int:
    """Run campaigns, and keep what they said."""
    parser = numbered_parser(__doc__, "campaigns", 20)
    parser.add_argument("--engine", choices=("toy", "megatron"), default="toy", help="what computes between faults")
    arguments = parser.parse_args()
    log = "soak.txt" if arguments.engine == "toy" else "soak_megatron.txt"
    title = f"Random faults, by `make soak`, engine {arguments.engine}"
    return run_numbered("soak", "campaign", arguments, log, title)


if __name__ == "__main__":
    sys.exit(main())
