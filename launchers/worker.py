"""What each rank runs: Submitit's own worker, with the exit code that the task chose.

    python -m trainwright.launchers.worker FOLDER

Submitit loads the pickled call, runs it and pickles its result or error beside it; on an error it would exit with 1.
"""

import sys
from pathlib import Path

from .keys import take_keys
from .task import TaskEnded


def main(folder: str) -> int:
    """Run the task; its exit code."""
    from submitit.core.submission import process_job

    take_keys(Path(folder))
    try:
        process_job(folder)
    except TaskEnded as ended:
        return ended.code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
