"""Guards of a run: steps that look wrong are recorded, skipped, gone back behind, or end it, as the run file says."""

import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainwright.config.loading import dump_run, load_run
from trainwright.config.rundir import RunDir
from trainwright.launchers.follow import wait_for_end
from trainwright.parallelism.guards import GUARD, ROLLBACK
from trainwright.parallelism.timing import EVENT as STRAGGLER
from trainwright.parallelism.verify.ranks import run_forked
from trainwright.storage.building.build import BuildOptions, build_store
from trainwright.storage.checkpoints.checkpoint import open_checkpoint
from trainwright.tracking.ledger import Event, read_ledger
from trainwright.tracking.recorder import read_metrics

from .real_runs import (
    DEEPSPEED_LAYOUTS,
    IN_MATRIX,
    LAYOUTS,
    LENGTH,
    WHOLE,
    Model,
    curve,
    digests,
    go_on,
    kill_ranks,
    make_project,
    start,
    train,
)

pytestmark = pytest.mark.ranks
BATCH, BAD = 8, 25
"""Sequences of a step, and the step whose samples are noise."""
STEPS = 32
_GUARDS = ["guards.spike_window=8", "guards.spike_sigma=5"]
LAYOUT = {"megatron": LAYOUTS["dp2"], "deepspeed": DEEPSPEED_LAYOUTS["zero3"]}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run file that reads noise in step BAD, and text before and after."""
    folder = tmp_path_factory.mktemp("guards")
    run_file = make_project(folder, Model("llama", tied=False))
    draw = random.Random(5)
    (folder / "noise.txt").write_text("".join(chr(draw.randrange(33, 127)) for _ in range(40_000)))
    build_store(
        [folder / "noise.txt"],
        folder / "noise.zarr",
        BuildOptions(tokenizer=folder / "store.zarr" / "tokenizer"),
        _silent,
    )
    good, bad = "{good: 1, bad: 0}", "{good: 0, bad: 1}"
    until = (BAD - 1) * BATCH * LENGTH
    stages = [
        f"{{until_tokens: {until}, weights: {good}}}",
        f"{{until_tokens: {until + BATCH * LENGTH}, weights: {bad}}}",
        f"{{weights: {good}}}",
    ]
    stores = "train: [{store: store.zarr, name: good}, {store: noise.zarr, name: bad}]"
    text = run_file.read_text().replace("train: [{store: store.zarr}]", f"{stores}, stages: [{', '.join(stages)}]")
    run_file.write_text(text)
    return run_file


def _silent(*_: object) -> None:
    return


def events(run: RunDir, name: str) -> list[Event]:
    return [event for event in read_ledger(run) if event.event == name]


def found(run: RunDir) -> list[tuple[str, int, str]]:
    """Kind, step and action of what the guards recorded."""
    return [(event.fields["kind"], event.fields["step"], event.fields["action"]) for event in events(run, GUARD)]


@pytest.mark.parametrize("engine", [*LAYOUT] if WHOLE else ["megatron"])
def test_a_spike_is_skipped_and_nothing_else_changes(project: Path, engine: str) -> None:
    """Weights and moments after the bad step are those before it; a run that was killed behind it goes on alike."""
    kept = ["checkpoint.every_steps=1", "checkpoint.keep=100", f"train.steps={BAD + 3}"]
    run = train(project, f"skip-{engine}", [*_GUARDS, "guards.spike=skip", *kept, *LAYOUT[engine]])
    assert found(run) == [("spike", BAD, "skip")]
    assert [record["step"] for record in read_metrics(run) if record.get("skipped")] == [BAD]
    before, after = (digests(run.checkpoint(step), project) for step in (BAD - 1, BAD))
    assert before == after != digests(run.checkpoint(BAD + 1), project)
    assert open_checkpoint(run.checkpoint(BAD + 3)).manifest.scalars["optimizer_steps"] == BAD + 2
    resumed = ["checkpoint.every_steps=100", f"checkpoint.resume_from={run.checkpoint(BAD)}", f"train.steps={BAD + 3}"]
    again = train(project, f"skip-{engine}-on", [*_GUARDS, "guards.spike=skip", *resumed, *LAYOUT[engine]])
    assert curve(again) == {step: values for step, values in curve(run).items() if step > BAD}


@IN_MATRIX
def test_the_window_is_the_same_after_a_restart(project: Path) -> None:
    """Killed shortly before the spike: the steps before are known from the metrics, and it is skipped all the same."""
    length = [f"train.steps={STEPS}", "checkpoint.every_steps=4", "guards.spike=skip", *_GUARDS, *LAYOUTS["dp2"]]
    whole = train(project, "window", length)
    run = start(project, "window-killed", length)
    _kill_when(run, lambda: max(curve(run), default=0) >= BAD - 3)
    go_on(run)
    assert found(whole) == found(run) == [("spike", BAD, "skip")]
    assert curve(run) == curve(whole)


def test_a_rollback_goes_on_behind_the_bad_data(project: Path) -> None:
    """Also if the run is killed right after it, before anything was saved."""
    length = [f"train.steps={STEPS}", "checkpoint.every_steps=20", "guards.spike=rollback", *_GUARDS, *LAYOUTS["dp2"]]
    whole, run = train(project, "rollback", length), start(project, "rollback-killed", length)
    _kill_when(run, lambda: bool(events(run, ROLLBACK)))
    go_on(run)
    for each in (whole, run):
        assert found(each) == [("spike", BAD, "rollback")]
        [event] = events(each, ROLLBACK)
        assert event.fields == {"step": BAD, "to_step": 20, "position": BAD * BATCH}
        assert open_checkpoint(each.checkpoint(STEPS)).manifest.position == (STEPS + BAD - 20) * BATCH
        assert [record["step"] for record in read_metrics(each)] == [*range(1, STEPS + 1)]
    assert curve(run) == curve(whole)
    assert max(loss for loss, _ in list(curve(whole).values())[20:]) < 1.2 * curve(whole)[20][0]


@IN_MATRIX
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["guards.spike=stop"], f"guards.spike: step {BAD}: loss "),
        (["guards.spike=rollback", "guards.most_rollbacks=0"], "guards.most_rollbacks: all 0 rollbacks are used"),
    ],
)
def test_it_stops_with_one_line(project: Path, overrides: list[str], words: str) -> None:
    run = start(project, f"stop-{len(overrides)}", [f"train.steps={STEPS}", *_GUARDS, *overrides, *LAYOUTS["tp1"]])
    last = wait_for_end(run, lambda _: None)
    assert last.state == "failed"
    assert words in last.why


@IN_MATRIX
def test_what_is_warned_of_is_trained_on(project: Path) -> None:
    run = train(project, "warn", [f"train.steps={BAD + 1}", *_GUARDS, *LAYOUTS["tp1"]])
    assert found(run) == [("spike", BAD, "warn")]
    assert not [record for record in read_metrics(run) if record.get("skipped")]


def in_forks(run: RunDir, overrides: list[str], patch: Callable[[int], None]) -> list[str]:
    """What another attempt of a run on two ranks ends with on each, with something wrong in its processes."""
    attempt = run.next_attempt()
    run.attempt_yaml(attempt).write_text(dump_run(load_run(run.run_yaml, overrides)))

    def work(rank: int) -> None:
        from trainwright.parallelism import compat, trainer

        compat.prepare()
        patch(rank)
        try:
            ending = f"code {trainer.run_rank(run.path, attempt)}"
        except Exception as error:
            ending = f"{type(error).__name__} {getattr(error, 'here', '')}: {error}"
        (run.path / f"ending-{rank}").write_text(ending)

    run_forked(2, work, 240)
    return [(run.path / f"ending-{rank}").read_text() for rank in (0, 1)]


def _engine() -> Any:
    """The class whose methods a patch may replace, in a rank's process."""
    from trainwright.parallelism.megatron.engine import MegatronEngine

    return MegatronEngine


def wrong_loss(factor: float, *, rank: int, call: int) -> Callable[[int], None]:
    """A patch: this rank's loss of one micro batch comes out otherwise."""

    def patch(me: int) -> None:
        engine = _engine()
        original, calls = engine._loss, iter(range(10**9))

        def loss(self: Any, *args: Any) -> Any:
            total, tokens, report = original(self, *args)
            wrong = me == rank and next(calls) == call
            scale = factor if wrong else 1.0
            return total * scale, tokens, {"sums": report["sums"] * torch.tensor([scale, 1.0])}

        engine._loss = loss

    return patch


_SHORT = ["train.steps=2", *LAYOUTS["dp2"]]


def test_a_rank_that_computes_wrongly_is_named(project: Path) -> None:
    """Two micro batches a step on each rank, from step 3 on: calls 4 and 5 compute step 4 for the second time."""
    run = train(project, "corrupt", _SHORT)
    overrides = ["train.steps=6", "guards.recompute_every=4"]
    endings = in_forks(run, overrides, wrong_loss(1 + 1e-6, rank=1, call=5))
    assert [ending.split(":")[0] for ending in endings] == ["UnhealthyNode False", "UnhealthyNode True"]
    assert "step 4: computed twice, the gradient came out otherwise on rank 1 (" in endings[0]
    [event] = events(run, GUARD)
    assert (event.fields["kind"], event.fields["ranks"], event.fields["action"]) == ("corrupt", [1], "leave")
    assert max(curve(run)) == 3, "the update of step 4 was not applied"


@IN_MATRIX
@pytest.mark.parametrize("layout", ["dp2", "tp2_pp2"])
def test_comparing_changes_nothing(project: Path, layout: str) -> None:
    length = ["train.steps=8", "train.deterministic=true", *LAYOUTS[layout]]
    without = train(project, f"alone-{layout}", length)
    twice = train(project, f"twice-{layout}", [*length, "guards.recompute_every=2"])
    assert curve(twice) == curve(without)
    assert not events(twice, GUARD)


@IN_MATRIX
def test_a_loss_that_is_not_finite_is_skipped(project: Path) -> None:
    run = train(project, "nan", _SHORT)
    assert in_forks(run, ["train.steps=6"], wrong_loss(math.nan, rank=0, call=3)) == ["code 0", "code 0"]
    assert found(run) == [("non_finite", 4, "skip")]
    assert [record["step"] for record in read_metrics(run) if record.get("skipped")] == [4]
    assert open_checkpoint(run.checkpoint(6)).manifest.scalars["optimizer_steps"] == 5


@IN_MATRIX
def test_too_many_in_a_row_end_the_run(project: Path) -> None:
    run = train(project, "nans", _SHORT)

    def always(rank: int) -> None:
        engine = _engine()
        original = engine._loss
        engine._loss = lambda self, *args: (original(self, *args)[0] * math.nan, *original(self, *args)[1:])

    endings = in_forks(run, ["train.steps=20", "guards.most_skipped=3"], always)
    assert all("guards.most_skipped: 4 updates in a row had to be skipped, up to step 6" in each for each in endings)


@IN_MATRIX
def test_a_slow_rank_is_named(project: Path) -> None:
    run = train(project, "slow", _SHORT)

    def slow(rank: int) -> None:
        engine = _engine()
        original = engine._loss

        def late(*args: Any) -> Any:
            time.sleep(0.1)
            return original(*args)

        if rank == 1:
            engine._loss = late

    assert in_forks(run, ["train.steps=10", "guards.timing_every=4"], slow) == ["code 0", "code 0"]
    told = events(run, STRAGGLER)
    assert told
    assert {event.fields["straggler"] for event in told} == {1}
    assert " computes 0." in f" {told[0].fields['words']}"
    lines = [json.loads(line) for line in run.rank_times(2).read_text().splitlines()]
    assert [line["step"] for line in lines] == [6, 10]
    assert all(each["waiting_s"] > 0.15 for each in [line["ranks"][0] for line in lines]), "rank 0 waits for rank 1"


@IN_MATRIX
def test_repeated_samples_are_found(project: Path, tmp_path: Path) -> None:
    """A store so small that its samples come again."""
    text = tmp_path / "few.txt"
    text.write_text("abcdefgh " * 200)
    store = tmp_path / "few.zarr"
    build_store([text], store, BuildOptions(tokenizer=project.parent / "store.zarr" / "tokenizer"), _silent)
    data = [f"data.train=[{{store: {store}}}]", "data.stages=[]", "train.steps=40", *LAYOUTS["tp1"]]
    assert not events(train(project, "not-looked-for", data), GUARD)
    run = train(project, "repeats", [*data, "guards.repeated=warn", "guards.spike=off"])
    assert {kind for kind, _, _ in found(run)} == {"repeated"}
    run = start(project, "repeats-stop", [*data, "guards.repeated=stop"])
    last = wait_for_end(run, lambda _: None)
    assert last.state == "failed"
    assert "guards.repeated: step " in last.why


def _kill_when(run: RunDir, true: Callable[[], bool], timeout_s: float = 180.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kill_ranks(run)
