"""A chunk goes bad under a run: it stops and says which, and goes on without it, the same in every layout."""

import shutil
from pathlib import Path

import pytest

from trainwright.config.rundir import RunDir
from trainwright.launchers.another_attempt import continue_run
from trainwright.launchers.follow import wait_for_end
from trainwright.tracking.ledger import read_ledger

from ..unit.storage.tokens.test_reader import flip
from .real_runs import IN_MATRIX, LAYOUTS, Model, curve, finish, largest_difference, make_project, start

pytestmark = pytest.mark.ranks


def stopped(run: RunDir) -> str:
    """What rank 0 said at the end of an attempt that a bad chunk ended."""
    last = wait_for_end(run, lambda _: None)
    assert last.state != "finished"
    assert last.log is not None
    return "".join(path.read_text() for path in Path(last.log).parent.glob("0000*.log"))


@IN_MATRIX
def test_a_run_goes_on_without_a_bad_chunk(tmp_path: Path) -> None:
    run_file = make_project(tmp_path, Model("llama", False))
    (shard,) = (run_file.parent / "store.zarr" / "c").iterdir()
    flip(shard, shard.stat().st_size // 2)
    curves = []
    for name, layout in (("one", []), ("two", LAYOUTS["tp2_sp"])):
        length = ["train.steps=6", "checkpoint.every_steps=1", "data.on_bad_chunk=stop"]
        run = start(run_file, name, [*length, *layout])
        said = stopped(run)
        assert "fails its crc32c; repair it (`trainwright data verify " in said
        for _ in range(8):  # every bad chunk is met once
            continue_run(run, ["data.on_bad_chunk=replace"])
            if wait_for_end(run, lambda _: None).state == "finished":
                break
        finish(run)
        events = [event.fields for event in read_ledger(run) if event.event == "bad_chunk"]
        assert events
        assert {event["source"] for event in events} == {0}
        log = "".join(path.read_text() for path in run.attempt_logs(run.attempts()[-1]).glob("0*.log"))
        assert "bad chunks of the ledger: samples that touch them are replaced" in log
        assert "samples replaced" in log
        curves.append(curve(run))
        shutil.rmtree(run.checkpoints)
    assert largest_difference(*curves) <= 1e-5
