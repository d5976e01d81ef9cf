"""What a task may use: ending with a code of its own, and signals that mean what they say."""

import signal


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
