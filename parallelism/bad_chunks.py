"""Chunks of token stores found bad while training: recorded in the ledger, and replaced if the run says so."""

import json
import sys

from ..config.errors import FoundBad
from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..storage.loading.repairs import Repair
from ..storage.loading.training_data import BadSource, TrainingData
from ..tracking.ledger import LedgerWriter, read_ledger
from .ranks import text_from_rank_zero

EVENT = "bad_chunk"


def replace_recorded(run: RunConfig, run_dir: RunDir, data: TrainingData, rank: int) -> None:
    """Under data.on_bad_chunk `replace`, let `data` leave out what this run's ledger names; every rank calls it."""
    if run.data.on_bad_chunk != "replace":
        return
    found = _recorded(run_dir) if rank == 0 else []
    repairs = [Repair(**each) for each in json.loads(text_from_rank_zero(json.dumps(found)))]
    data.replace_bad(repairs)
    if rank == 0 and repairs:
        print(f"{len(repairs)} bad chunks of the ledger: samples that touch them are replaced", file=sys.stderr)


def record(ledger: LedgerWriter, run: RunConfig, position: int, error: BadSource) -> FoundBad:
    """Write a chunk into the ledger; what to raise."""
    repair = Repair(error.source, error.chunk, position)
    ledger.write(EVENT, file=error.where, problem=error.problem, **repair.record())
    remedy = "it is in the ledger; go on without it: `trainwright submit RUN`"
    if run.data.on_bad_chunk == "stop":
        store = run.data.train[error.source].store
        remedy = f"repair it (`trainwright data verify {store} --repair COPY`), or go on with data.on_bad_chunk=replace"
    return FoundBad(error.where, error.problem, remedy)


def _recorded(run_dir: RunDir) -> list[dict[str, int]]:
    """Each chunk once, from the lowest position at which it was found."""
    lowest: dict[tuple[int, int], int] = {}
    for event in read_ledger(run_dir):
        if event.event == EVENT:
            key = (event.fields["source"], event.fields["chunk"])
            lowest[key] = min(event.fields["position"], lowest.get(key, event.fields["position"]))
    return [Repair(source, chunk, position).record() for (source, chunk), position in sorted(lowest.items())]
