"""The export of a run that has finished, as a job: `python -m trainwright.serving.finished_export RUN`."""

import sys
from pathlib import Path

from ..config.errors import FoundBad, UserError
from ..config.rundir import RunDir
from ..launchers.status import read_status
from .models import find_model


def main() -> int:
    """Export RUN into its own directory; 2 if it has not finished, 3 if its checkpoint is bad."""
    if len(sys.argv) != 2:
        print("usage: python -m trainwright.serving.finished_export RUN", file=sys.stderr)
        return 2
    try:
        print(f"exported to {_export(RunDir(Path(sys.argv[1])))}")
    except (UserError, FoundBad) as error:
        print(f"trainwright: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _export(run: RunDir) -> Path:
    """A job that saved and was not to go on has ended well for Slurm, but there is nothing to serve yet."""
    now = read_status(run)
    if now.state != "finished":
        raise UserError(
            str(run.path), f"is {now.state} at step {now.step} of {now.steps}", "go on with it, then export"
        )
    return find_model(str(run.path)).folder


if __name__ == "__main__":
    sys.exit(main())
