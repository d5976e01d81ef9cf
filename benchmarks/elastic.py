"""Elastic resume, trial after trial: killed at a random moment, gone on with in another layout, as `make test-elastic`.

Run: make test-elastic ARGS="--trials 50 --seed N". The log, benchmarks/results/elastic.txt, gets a line for each trial,
so that trials that were stopped go on: the same seed, --first. Exit code 1 if one was not passed.
"""

import sys

from .whole_tests import numbered_parser, run_numbered


def main() -> int:
    """Run trials, and keep what they said."""
    arguments = numbered_parser(__doc__, "trials", 50).parse_args()
    return run_numbered("elastic", "trial", arguments, "elastic.txt", "Elastic resume, by `make test-elastic`")


if __name__ == "__main__":
    sys.exit(main())
