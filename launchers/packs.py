"""Several runs side by side in one job of one node: what it asks for, and what it asks us once all have ended.

    python -m trainwright.launchers.packs PACK

puts the job back into the queue, for those of its runs that go on. PACK is a folder with a link `run-N` to each run.
"""

import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..config.cluster import ClusterConfig
from ..config.loading import load_frozen
from ..config.rundir import RunDir
from ..tracking.ledger import read_ledger
from .healing import START_IN_S, kept_away, requeue
from .own_job import control_of
from .scontrol import ControlRefused
from .slurm import SlurmUnreachable

PACK = "TRAINWRIGHT_PACK"
"""Variable with the folder of the runs that share this job."""
GOES_ON, MOVES = 75, 76
"""How a run's attempt ends there: to start again in this job or the next; or on another node, and all with it."""


def for_all(cluster: ClusterConfig, runs: int) -> ClusterConfig:
    """What a job of so many runs asks for, each of which is to have `cluster`, one node."""
    memory = cluster.memory_per_node
    if memory:
        number, unit = re.fullmatch(r"(\d+)(\D?)", memory).groups()  # type: ignore[union-attr]  # validated
        memory = f"{int(number) * runs}{unit}"
    changes = {
        "ranks_per_node": cluster.ranks_per_node * runs,
        "gpus_per_node": cluster.gpus_per_node * runs,
        "memory_per_node": memory,
    }
    return cluster.model_copy(update=changes)


def link(pack: Path, number: int) -> Path:
    """Where the pack's Nth run is linked."""
    return pack / f"run-{number}"


def runs_of(pack: Path) -> list[RunDir]:
    """The runs of a pack."""
    return [RunDir(path.resolve()) for path in sorted(pack.glob("run-*"))]


def slurm_log(run: RunDir, first: int, environment: Mapping[str, str]) -> Path:
    """The file that sbatch was given for the submission of attempt `first`: it has Slurm's own words on the job."""
    pack = environment.get(PACK)
    return Path(pack) / "batch.log" if pack else run.batch_log(first)


def main(argv: Sequence[str]) -> int:
    """Requeue this job, off the nodes that are kept from any of its runs that go on."""
    runs = [run for run in runs_of(Path(argv[0])) if _goes_on(run)]
    control = control_of(runs[0]) if runs else None
    if control is None:
        return 1
    wanted = [event.fields["not_before"] for run in runs for event in read_ledger(run) if event.event == "requeue"]
    seconds = max(START_IN_S, round(max(wanted, default=0.0) - time.time()))
    excluded = [host for run in runs for host in kept_away(run, load_frozen(run.run_yaml).cluster)]
    try:
        trouble = requeue(control, excluded, seconds)
    except (ControlRefused, SlurmUnreachable) as error:
        trouble = str(error)
    if trouble:
        print(f"trainwright: {trouble}", file=sys.stderr)
    return 0


def _goes_on(run: RunDir) -> bool:
    ends = [event.fields for event in read_ledger(run) if event.event == "exit" and event.writer == "supervisor"]
    return bool(ends) and bool(ends[-1].get("requeued"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
