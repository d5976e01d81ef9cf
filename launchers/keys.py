"""Keys on their way into a Slurm job: by a private file beside the task, which each rank reads.

What sbatch is given of the environment goes to Slurm's controller, its spool on the nodes, and at some sites to the
accounting database, where `sacct --env-vars` shows it. A file of the user's own does not.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

_FILE = "keys.json"


def write_keys(folder: Path, values: Mapping[str, str]) -> None:
    """Put down variables (0600) for the ranks of the task in `folder`; what was there before is gone."""
    drop_keys(folder)
    if not values:
        return
    handle = os.open(folder / _FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(dict(values), file)


def take_keys(folder: Path) -> None:
    """Set them in this process's environment, if there are any."""
    try:
        os.environ.update(json.loads((folder / _FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return


def drop_keys(folder: Path) -> None:
    """Remove them: no rank will start any more."""
    (folder / _FILE).unlink(missing_ok=True)
