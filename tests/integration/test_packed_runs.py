"""Training on whole documents: the same in every layout, and no other packing slips in between two attempts."""

import json
import shutil
from pathlib import Path

import pytest

from trainwright.launchers.another_attempt import continue_run
from trainwright.launchers.follow import wait_for_end
from trainwright.storage.loading.packing import pack_store, packing_folder
from trainwright.tracking.recorder import read_metrics

from .real_runs import (
    IN_MATRIX,
    LAYOUTS,
    LENGTH,
    Model,
    curve,
    kill_ranks,
    largest_difference,
    make_project,
    start,
    train,
    wait_for_step,
)

pytestmark = pytest.mark.ranks
PACKED = ["data.packing=best_fit", "train.steps=4"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_file = make_project(tmp_path_factory.mktemp("packed"), Model("llama", False))
    pack_store(run_file.parent / "store.zarr", LENGTH)
    return run_file


@IN_MATRIX
def test_layouts_agree_on_packed_samples(project: Path) -> None:
    one = train(project, "one", PACKED)
    two = train(project, "two", [*PACKED, *LAYOUTS["tp2_pp2"]])
    assert largest_difference(curve(one), curve(two)) <= 1e-5
    counted = [record["tokens"] for record in read_metrics(one)]
    assert max(counted) < 8 * LENGTH, "padding and first tokens do not count"
    assert len(set(counted)) > 1


@IN_MATRIX
def test_another_packing_is_refused(project: Path) -> None:
    run = start(project, "changed", ["data.packing=best_fit", "train.steps=500", "checkpoint.every_steps=2"])
    wait_for_step(run, 4)
    kill_ranks(run)
    store = project.parent / "store.zarr"
    kept = packing_folder(store, LENGTH, 1)
    record = json.loads((kept / "packing.json").read_text())
    record["files"]["places/c/0"]["digest"] = "blake3:" + "0" * 64  # as if pieces were dealt out otherwise
    shutil.copytree(kept, kept.with_name("kept"))
    try:
        (kept / "packing.json").write_text(json.dumps(record))
        continue_run(run, [])
        last = wait_for_end(run, lambda _: None)
        assert last.state != "finished"
        assert last.log is not None
        log = Path(last.log).parent / "00000.log"
        assert "data.packing: a store was packed anew since step" in log.read_text()
    finally:
        shutil.rmtree(kept)
        kept.with_name("kept").rename(kept)
