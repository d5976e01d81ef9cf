"""Elastic resume: killed at a random moment, also in a save, and gone on with in another layout, world size or engine.

`make test` takes five trials of a new seed; `make test-elastic` takes fifty, and keeps what they print. Each trial is
drawn from the seed and its number alone ($ELASTIC_SEED, $ELASTIC_FIRST, $ELASTIC_TRIALS), so that trials which were
stopped go on where they were.
"""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from trainwright.config.rundir import RunDir
from trainwright.launchers.another_attempt import continue_run
from trainwright.storage.checkpoints.checkpoint import find_checkpoint
from trainwright.tracking.recorder import read_metrics

from .real_runs import (
    DEEPSPEED_LAYOUTS,
    LAYOUTS,
    MOE_LAYOUTS,
    ONE_RANK,
    QWEN2_MOE,
    Model,
    curve,
    finish,
    kill_in_a_save,
    kill_ranks,
    largest_difference,
    make_project,
    start,
    train,
    wait_for_step,
)

SEED = int(os.environ.get("ELASTIC_SEED", random.SystemRandom().randrange(2**32)))
FIRST, TRIALS = int(os.environ.get("ELASTIC_FIRST", "0")), int(os.environ.get("ELASTIC_TRIALS", "5"))
STEPS, EVERY, BATCH = 16, 3, 8
_LENGTH = [f"train.steps={STEPS}", f"checkpoint.every_steps={EVERY}"]
pytestmark = [pytest.mark.ranks, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Kind:
    """What is trained, on which layouts, and how far losses may differ from those of one rank."""

    model: Model
    layouts: dict[str, list[str]]
    bound: float


KINDS = {
    "dense": Kind(Model("qwen3", tied=True), LAYOUTS | DEEPSPEED_LAYOUTS, 1e-5),
    # A token at a near tie between two experts may go to the other one.
    "moe": Kind(QWEN2_MOE, MOE_LAYOUTS | DEEPSPEED_LAYOUTS, 1e-3),
}


@dataclass(frozen=True)
class Trial:
    """The layouts of a run, one after another, and how each attempt but the last is killed."""

    kind: str
    layouts: list[str]
    in_a_save: list[bool]


def drawn(number: int, draw: random.Random) -> Trial:
    """Every five trials have the same layout again, a mixture of experts, another engine and two kills among them."""
    sort = number % 5
    kind = "moe" if sort == 2 or (sort == 4 and draw.random() < 0.5) else "dense"
    names = list(KINDS[kind].layouts)
    layouts = draw.sample(names, 3 if sort == 4 else 2)
    if sort == 0:
        layouts = [layouts[0]] * 2
    if sort == 3:
        layouts = [draw.choice([*DEEPSPEED_LAYOUTS]), draw.choice([*LAYOUTS])]
        draw.shuffle(layouts)
    return Trial(kind, layouts, [sort == 0 or draw.random() < 0.4 for _ in layouts[1:]])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], RunDir]:
    """The run of a kind and layout that nobody killed; each is trained once."""
    projects: dict[str, Path] = {}
    runs: dict[tuple[str, str], RunDir] = {}

    def of(kind: str, layout: str) -> RunDir:
        if kind not in projects:
            projects[kind] = make_project(tmp_path_factory.mktemp(kind), KINDS[kind].model)
        if (kind, layout) not in runs:
            overrides = [*_LENGTH, *KINDS[kind].layouts.get(layout, ONE_RANK)]
            runs[kind, layout] = train(projects[kind], f"whole-{layout}", overrides)
        return runs[kind, layout]

    return of


@pytest.mark.parametrize("number", range(FIRST, FIRST + TRIALS))
def test_trial(number: int, uninterrupted: Callable[[str, str], RunDir]) -> None:
    print(f"seed {SEED}")
    draw = random.Random(f"{SEED} {number}")
    trial = drawn(number, draw)
    kind, began = KINDS[trial.kind], time.monotonic()
    same = len(set(trial.layouts)) == 1
    whole = uninterrupted(trial.kind, trial.layouts[0] if same else "one-rank")
    run = start(whole.path.parent.parent / "run.yaml", f"trial-{number}", [*_LENGTH, *kind.layouts[trial.layouts[0]]])
    kills: list[str] = []
    for layout, in_a_save in zip(trial.layouts[1:], trial.in_a_save, strict=True):
        kills.append(_kill(run, draw, in_a_save, last=6 * (len(kills) + 1)))
        continue_run(run, [] if same else [*ONE_RANK, *kind.layouts[layout]])
    finish(run)
    difference = largest_difference(curve(whole), curve(run))
    assert difference <= (0.0 if same else kind.bound)
    assert _tokens(run) == _tokens(whole)
    assert find_checkpoint(str(run.path)).manifest.position == STEPS * BATCH
    print(
        f"trial {number}: {trial.kind}: {' -> '.join(trial.layouts)}; killed {', '.join(kills)}: "
        f"{'bitwise equal' if same else f'{difference:.1e}'}, {time.monotonic() - began:.0f} s"
    )


def _kill(run: RunDir, draw: random.Random, in_a_save: bool, last: int) -> str:
    """SIGKILL all ranks at a random moment up to step `last`; in words when that was."""
    if in_a_save:
        step = draw.choice(range(last - 3, last + 1, EVERY))
        torn = kill_in_a_save(run, step)
        return f"{'in' if torn else 'after'} the save of step {step}"
    step = draw.randint(last - 5, last)
    wait_for_step(run, step)
    time.sleep(draw.uniform(0, 0.1))
    kill_ranks(run)
    return f"at step {max(curve(run))}"


def _tokens(run: RunDir) -> dict[int, int]:
    """Counted tokens of each step; they differ from batch to batch."""
    return {record["step"]: record["tokens"] for record in read_metrics(run)}
