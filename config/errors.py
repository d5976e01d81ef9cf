"""The ways a command or a rank ends that are not our fault. Each is one line and an exit code."""


class UserError(ValueError):
    """The user can mend this: a field or file, its value, and what to do (exit code 2).

    `where` is a dotted field, a file or an option; `problem` says what is wrong and holds the value;
    `remedy` says what to do. All three go on one line.
    """

    exit_code = 2

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        self.where, self.problem, self.remedy = where, problem, remedy
        super().__init__(" ".join(f"{where}: {problem}; {remedy}".split()))


class CannotWrite(UserError):
    """A disk refused what had to be written: it is the user's to mend, and may be mended by others before long."""


class FoundBad(UserError):
    """A check ran and found bad data, a bad node or a bad export (exit code 3)."""

    exit_code = 3


class UnhealthyNode(RuntimeError):
    """A rank leaves since a node of its job failed a check; `here` if that node is its own."""

    def __init__(self, words: str, *, here: bool) -> None:
        self.here = here
        super().__init__(words)
