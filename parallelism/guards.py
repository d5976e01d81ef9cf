"""What is done about a step that looks wrong: non-finite, a spike, repeated data, corruption. As the run file says."""

import json
import math
from dataclasses import dataclass

from ..config.errors import FoundBad, UnhealthyNode, UserError
from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..tracking.console import say
from ..tracking.ledger import LedgerWriter, read_ledger
from ..tracking.recorder import read_metrics
from .corruption import Corruption
from .engine import Engine, Samples, StepResult
from .ranks import Rank, all_agree, text_from_rank_zero
from .repeats import Repeats
from .spikes import Spikes

GUARD, ROLLBACK = "guard", "rollback"
"""Events of the ledger."""


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """A step that was computed, and whether to go back behind it."""

    result: StepResult
    roll_back: bool = False


class Guards:
    """Watches the steps of one attempt. Every rank has one, and all decide alike."""

    def __init__(self, run: RunConfig, run_dir: RunDir, me: Rank, ledger: LedgerWriter) -> None:
        self._config, self._run_dir = run.guards, run_dir
        self._me, self._ledger = me, ledger
        self._corruption = Corruption(run, me.rank)
        self._repeats = Repeats(run.guards.repeated_window) if run.guards.repeated != "off" else None
        self._spikes = Spikes(run.guards.spike_sigma, run.guards.spike_window)
        self._skipped = 0
        self._found: tuple[str, str] | None = None

    def begin(self, step: int) -> None:
        """Training goes on behind `step`, at the start or after a rollback: what the steps before it were like."""
        if self._config.spike == "off":
            return
        before = _applied_before(self._run_dir, step, self._config.spike_window) if self._me.rank == 0 else []
        told = json.loads(text_from_rank_zero(json.dumps(before)))
        self._spikes = Spikes(self._config.spike_sigma, self._config.spike_window, map(tuple, told))

    def train(self, engine: Engine, samples: Samples, rate: float, step: int) -> Guarded:
        """One step of the engine under all guards.

        Raises FoundBad or UserError if the run file says stop, or if one skip or rollback too many was needed;
        UnhealthyNode if a node computes wrongly.
        """
        if self._repeats:
            self._look_for_repeats(self._repeats, samples, step)
        self._corruption.begin(engine, samples, rate, step)
        self._found = None
        result = engine.train_step(samples, rate, lambda tried: self._accept(tried, step), self._corruption.watch)
        if not result.skipped:
            self._spikes.add(result.loss, result.grad_norm)
        if self._found is None and result.skipped:
            numbers = f"loss {result.loss:.6g}, gradient norm {result.grad_norm:.6g}"
            self._found = "non_finite", numbers
        if self._found is None:
            self._skipped = 0
            return Guarded(result=result)
        return self._act(*self._found, result, step)

    def rolled_back(self, *, step: int, to_step: int, position: int) -> None:
        """Record a rollback, so that another attempt knows of it too."""
        if self._me.rank == 0:
            self._ledger.write(ROLLBACK, step=step, to_step=to_step, position=position)
            say(f"rolled back from step {step} to {to_step}; training goes on at sample {position}")

    def _accept(self, tried: StepResult, step: int) -> bool:
        """Whether an update is applied; asked before it is, with the same result on every rank."""
        difference = self._corruption.compare(tried)
        if difference:
            self._record("corrupt", difference.words, self._config.corrupt, step, ranks=difference.ranks)
            if self._config.corrupt == "leave":
                raise UnhealthyNode(f"step {step}: {difference.words}", here=difference.mine)
            remedy = "take these nodes out, and go on from a checkpoint of before the last comparison"
            raise FoundBad("guards.corrupt", f"step {step}: {difference.words}", remedy)
        if self._config.spike == "off" or not math.isfinite(tried.grad_norm):
            return True
        words = self._spikes.words(tried.loss, tried.grad_norm)
        if self._config.spike == "warn":  # rank 0's word is enough
            self._found = ("spike", words) if words else None
            return True
        if all_agree(not words):
            return True
        self._found = "spike", words
        return False

    def _act(self, kind: str, words: str, result: StepResult, step: int) -> Guarded:
        """Record what was found, and do what the run file says."""
        action: str = getattr(self._config, kind)
        self._record(kind, words, action, step)
        if action == "stop":
            remedy = f"look at the data and the learning rate, or set guards.{kind} to skip or rollback"
            raise FoundBad(f"guards.{kind}", f"step {step}: {words}", remedy)
        if action == "rollback":
            self._require_rollbacks_left(step, words)
            return Guarded(result=result, roll_back=True)
        self._skipped = self._skipped + 1 if action == "skip" else 0
        if self._skipped > self._config.most_skipped:
            raise UserError(
                "guards.most_skipped",
                f"{self._skipped} updates in a row had to be skipped, up to step {step} ({words})",
                "lower the learning rate, or continue from an earlier checkpoint",
            )
        return Guarded(result=result)

    def _require_rollbacks_left(self, step: int, words: str) -> None:
        done = sum(event.event == ROLLBACK for event in read_ledger(self._run_dir)) if self._me.rank == 0 else 0
        if int(text_from_rank_zero(str(done))) >= self._config.most_rollbacks:
            raise UserError(
                "guards.most_rollbacks",
                f"all {self._config.most_rollbacks} rollbacks are used, and step {step} needs one more ({words})",
                "look at the data and the learning rate, or raise it",
            )

    def _look_for_repeats(self, repeats: Repeats, samples: Samples, step: int) -> None:
        found = repeats.look(samples.tokens, step)
        if all_agree(not found):
            return
        words = "another rank found samples that it had trained on before"
        if found:
            seen = f"{len(found)} samples of rank {self._me.rank} were trained on before"
            words = f"{seen}, the first at step {min(found.values())}"
            self._write("repeated", words, self._config.repeated, step)
        if self._config.repeated == "stop":
            remedy = "see data.train for stores that hold the same text, or set guards.repeated to warn"
            raise FoundBad("guards.repeated", f"step {step}: {words}", remedy)

    def _record(self, kind: str, words: str, action: str, step: int, **fields: object) -> None:
        """What all ranks found alike: rank 0 says it."""
        if self._me.rank == 0:
            self._write(kind, words, action, step, **fields)

    def _write(self, kind: str, words: str, action: str, step: int, **fields: object) -> None:
        self._ledger.write(GUARD, kind=kind, words=words, action=action, step=step, **fields)
        say(f"step {step}: {kind.replace('_', '-')}: {words} ({action})")


def position_after(run_dir: RunDir, step: int, position: int) -> int:
    """Where training goes on from the checkpoint of `step`: its own position, or behind what was rolled back since."""
    found = [
        int(event.fields["position"])
        for event in read_ledger(run_dir)
        if event.event == ROLLBACK and event.fields["to_step"] == step
    ]
    return max([position, *found])


def _applied_before(run_dir: RunDir, step: int, window: int) -> list[tuple[float, float]]:
    """Loss and gradient norm of the last steps up to `step` whose updates were applied."""
    lines = [line for line in read_metrics(run_dir) if line["step"] <= step and not line.get("skipped")]
    return [(line["loss"], line["grad_norm"]) for line in lines[-window:]]
