"""What each rank runs: Submitit's own worker, with the exit code that the task chose.

    python -m trainwright.launchers.task FOLDER

Submitit loads the pickled call, runs it and pickles its result or error beside it; on an error it would exit with 1.
"""

import signal
import sys


class TaskEnded(Exception):
    """The task is over, and its process ends with this exit code; Submitit pickles the message as the job's error."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


def take_signals_back() -> None:
    """Undo Submitit's handlers, which ignore SIGTERM and requeue from rank 0 at SIGUSR2.

    Call at the start of a task; Submitit sets its handlers right before.
    """
    for number in (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)


def main(folder: str) -> int:
    """Run the task; its exit code."""
    from submitit.core.submission import process_job

    try:
        process_job(folder)
    except TaskEnded as ended:
        return ended.code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
