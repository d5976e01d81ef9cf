"""How long saves of a run have taken, by its ledger."""

from ..config.rundir import RunDir
from .ledger import read_ledger


def save_seconds(run_dir: RunDir) -> list[float]:
    """Seconds of every committed save so far, as rank 0 saw them."""
    if not run_dir.ledger.is_dir():
        return []
    began: dict[tuple[int, int], float] = {}
    took = []
    for event in read_ledger(run_dir):
        if event.writer == "rank-00000" and event.event in ("save", "commit"):
            key = (event.attempt, event.fields["step"])
            if event.event == "save":
                began[key] = event.time
            elif key in began:
                took.append(event.time - began[key])
    return took
