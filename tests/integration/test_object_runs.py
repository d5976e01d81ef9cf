"""Runs whose store lies in an object store, or is staged from it: the same losses; what goes wrong stops them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainwright.cli.main import main
from trainwright.config.loading import load_frozen, load_run
from trainwright.config.rundir import RunDir
from trainwright.launchers.another_attempt import continue_run
from trainwright.launchers.follow import wait_for_end
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.loading.staging import stage_stores

from ..s3_server import S3, s3_server
from ..unit.storage.tokens.test_reader import flip
from .real_runs import (
    IN_MATRIX,
    LAYOUTS,
    VOCABULARY,
    Curve,
    Model,
    curve,
    finish,
    make_project,
    start,
    train,
    wait_for_step,
)

pytestmark = pytest.mark.ranks


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    """A server to which this process's environment points."""
    with pytest.MonkeyPatch.context() as patch, s3_server() as server:
        for name, value in server.variables.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run file whose store has many shards."""
    run_file = make_project(tmp_path_factory.mktemp("runs"), Model("llama", False))
    options = BuildOptions(vocab_size=VOCABULARY, shard_tokens=1024)
    build_store([run_file.parent / "text"], run_file.parent / "many.zarr", options, lambda *_: None)
    run_file.write_text(run_file.read_text().replace("store.zarr", "many.zarr"))
    return run_file


@pytest.fixture(scope="module")
def local(project: Path) -> Curve:
    """Losses on two ranks that read the folder."""
    return curve(train(project, "local", LAYOUTS["dp2"]))


@pytest.fixture(scope="module")
def there(project: Path, s3: S3) -> list[str]:
    """Overrides for two ranks that read an object store."""
    url = s3.upload(project.parent / "many.zarr", "many.zarr")
    names = json.dumps(sorted([*s3.variables, "SCRATCH"]))
    return [*LAYOUTS["dp2"], f"data.train.0.store={url}", f"cluster.environment={names}"]


def test_the_losses_are_those_of_a_folder_and_no_secret_is_written(
    project: Path, s3: S3, local: Curve, there: list[str]
) -> None:
    run = train(project, "objects", there)
    assert curve(run) == local
    assert load_frozen(run.run_yaml).data.train[0].generation == 1
    assert (run.tokenizer / "tokenizer.json").read_bytes() == s3.get("many.zarr/tokenizer/tokenizer.json")
    written = [path.read_bytes() for path in run.path.rglob("*") if path.is_file()]
    assert not any(b"not-in-any-log" in content for content in written)


@IN_MATRIX
def test_staged_once_per_node_and_again_after_damage(
    project: Path,
    local: Curve,
    there: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    staged = [*there, "data.stage_to=$SCRATCH/copies", "data.on_bad_chunk=replace", "checkpoint.every_steps=1"]
    assert main(["plan", str(project), *staged, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["stage"] == "$SCRATCH/copies"
    config = load_run(project, staged).data
    copy = Path(stage_stores(config, print).train[0].store)
    assert plan["staged_bytes"] == sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())
    for shard in copy.glob("c/*"):
        flip(shard, 100)
    run = start(project, "staged", staged)
    assert wait_for_end(run, lambda _: None).state != "finished"
    assert "fails its crc32c (the copy of data.stage_to; now " in said(run)
    assert list(copy.parent.glob("*.damaged-*"))
    continue_run(run, [])
    finish(run)
    assert curve(run) == local
    assert said(run).count("copied to") == 1  # by one of the two ranks
    assert said(run).count(".damaged-") == 1  # which is left, and named
    assert said(run).count("is whole, and used again") == 1


def said(run: RunDir) -> str:
    """What the ranks of the newest attempt printed."""
    return "".join(path.read_text() for path in run.attempt_logs(run.attempts()[-1]).glob("0*.log"))


@IN_MATRIX
def test_a_server_that_dies_under_a_run_is_named(project: Path, there: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch, s3_server() as own:
        for name, value in own.variables.items():
            patch.setenv(name, value)
        own.upload(project.parent / "many.zarr", "many.zarr")
        few = ["train.steps=500", "train.global_batch_size=2", "train.micro_batch_size=1"]
        run = start(project, "dies", [*there, *few])
        wait_for_step(run, 1)
        own.stop()
        last = wait_for_end(run, lambda _: None)
    assert last.state != "finished"
    lines = [line for line in said(run).splitlines() if line.startswith("trainwright: s3://corpora/many.zarr/c/")]
    assert lines
    assert ": inner chunk 0 cannot be read (" in lines[0]
