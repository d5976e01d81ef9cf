"""The training loop: the one caller of Engine.train_step. Launchers start `run_rank` by this module's name."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist

from ..config.data import DataConfig
from ..config.layout import Layout
from ..config.layout_rules import layout_of
from ..config.loading import load_frozen
from ..config.model import ModelShape
from ..config.model_reader import read_model
from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..config.verdicts import FINISHED, SAVED
from ..storage.checkpoints.checkpoint import Checkpoint
from ..storage.checkpoints.manifest import manifest_digest
from ..storage.loading.training_data import BadSource, TrainingData
from ..tracking.ledger import LedgerWriter
from ..tracking.recorder import Recorder
from ..tracking.wandb_log import stable_wandb_id
from .bad_chunks import record, replace_recorded
from .batches import BatchReader
from .collectives import install
from .engine import Samples, StepResult
from .engines import build_engine, prepare
from .evaluation import Evaluation
from .flight_record import operations_now
from .guards import Guards, position_after
from .hang_report import Reporter
from .preflight import preflight
from .ranks import Rank, from_rank_zero, host_array, join
from .recording import draw, recording, step_record
from .resume import find_start, first_weights, state_of
from .saving import Progress, Saver
from .schedule import learning_rate
from .staging import damage_in_copy, stage
from .stopping import StopAgreement
from .timing import Timing
from .watchdog import HangLimits, Watchdog


def run_rank(
    run_dir: Path,
    attempt: int,
    asked: Callable[[], str] = str,
    ends_at: float | None = None,
    hung: Callable[[str], None] | None = None,
) -> int:
    """Train as one rank of a run until its last step; returns the verdict code (0: finished, 85: saved, not finished).

    `asked` names a signal that has asked this process to stop, or is empty; `ends_at` is when the time limit ends the
    job, in seconds since the epoch. Either way all ranks save after the same step and leave. `hung` ends this process
    when it makes no progress any more, and is told so in one line.

    Reads RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. Raises UserError for what the user can mend.
    """
    place = RunDir(run_dir)
    run = load_frozen(place.attempt_yaml(attempt))
    model = read_model(place.model_config)
    layout = layout_of(run, model)
    if run.data.stage_to is None:  # what is wrong with a store is said before ranks wait for each other
        data = _open(run.data, model)
    prepare(run)
    install()
    me = join(layout.world_size)
    reporter = Reporter(place, attempt, me.rank, me.world_size, operations_now)
    heartbeat = None if me.rank else place.heartbeat(attempt)
    with Watchdog(HangLimits(run.restarts), reporter, hung, heartbeat) as watchdog:
        try:
            watchdog.entered("preflight")
            preflight(run, place, attempt, me, model)
            if run.data.stage_to is not None:
                data = _open(stage(run.data, watchdog.entered), model)
            watchdog.entered("load")
            training = _Training(run, place, attempt, me, model, layout, data)
            finished = training.run(StopAgreement(me, place, training.ledger, asked, ends_at), watchdog)
        finally:
            dist.destroy_process_group()
    return FINISHED if finished else SAVED


def _open(config: DataConfig, model: ModelShape) -> TrainingData:
    data = TrainingData.open(config)
    data.check_model(model)
    return data


class _Training:
    """One rank's run from its start (fresh or resumed) to its last step."""

    def __init__(
        self,
        run: RunConfig,
        run_dir: RunDir,
        attempt: int,
        me: Rank,
        model: ModelShape,
        layout: Layout,
        data: TrainingData,
    ) -> None:
        self._run, self._run_dir, self._attempt, self._me = run, run_dir, attempt, me
        self._model, self._data = model, data
        self._engine = build_engine(run, model, layout, me.rank)
        self._batches = BatchReader(run, data, layout.coordinates(me.rank).data, layout.data, host_array)
        self.ledger = LedgerWriter(run_dir, attempt, f"rank-{me.rank:05d}")
        self._guards = Guards(run, run_dir, me, self.ledger)
        self._evaluation = Evaluation(run, model, layout, me, data.tokenizer_fingerprint)
        self._timing = Timing(run, run_dir, attempt, me, self.ledger)
        wandb_id = None if run.tracking.wandb.mode == "disabled" else stable_wandb_id(run_dir)
        self._saver = Saver(
            run=run,
            run_dir=run_dir,
            model=model,
            layout=layout,
            data=data,
            me=me,
            ledger=self.ledger,
            attempt=attempt,
            wandb_id=wandb_id,
        )

    def run(self, stop: StopAgreement, watchdog: Watchdog) -> bool:
        """Load, train, save; whether the last step was reached. If not, all ranks agreed to stop, and have saved."""
        replace_recorded(self._run, self._run_dir, self._data, self._me.rank)
        start = find_start(self._run, self._run_dir, self._model, self._data, self._me)
        progress = self._load(start)
        unsaved = start is None or start.folder != self._run_dir.checkpoint(progress.step)
        begun, every = progress.step, self._run.checkpoint.every_steps
        self._guards.begin(progress.step)
        watchdog.entered("first step")
        recorded = recording(self._run, self._run_dir, self._attempt, self._me)
        with closing(self._batches), closing(self._evaluation), recorded as recorder:
            while progress.step < self._run.train.steps and not stop.agreed(progress.step):
                progress, roll_back = self._step(progress, recorder, stop, watchdog)
                if roll_back:
                    progress = self._roll_back(progress, recorder, watchdog)
                    begun, unsaved = min(begun, progress.step), False
                    continue
                unsaved = every is None or progress.step % every != 0
                if not unsaved:
                    with watchdog.saving():
                        self._save(progress, recorder, stop)
            finished = progress.step >= self._run.train.steps
            if unsaved and (finished or progress.step > begun):
                with watchdog.saving():
                    self._save(progress, recorder, stop)
            watchdog.entered("end")
        if finished and self._me.rank == 0:
            draw(self._run_dir)
        return finished

    def _step(
        self, progress: Progress, recorder: Recorder | None, stop: StopAgreement, watchdog: Watchdog
    ) -> tuple[Progress, bool]:
        """One step, perhaps an evaluation, and the record of both; where training is, and whether to go back."""
        began = time.perf_counter()
        self._timing.step_begins()
        rate = learning_rate(self._run.train, progress.step + 1)
        samples = self._read(progress.position)
        guarded = self._guards.train(self._engine, samples, rate, progress.step + 1)
        progress = self._advance(progress, guarded.result)
        seconds = time.perf_counter() - began
        self._timing.step_done(progress.step, seconds)
        stop.step_took(seconds)
        watchdog.step_done(progress.step, seconds)
        if not guarded.roll_back:
            with watchdog.evaluating():
                progress = replace(progress, held_out=self._evaluation.after(progress.step, self._engine))
        if recorder:
            recorder.step(step_record(progress.step, guarded.result, rate, seconds, progress.held_out))
        return progress, guarded.roll_back

    def _read(self, position: int) -> Samples:
        began = time.perf_counter()
        try:
            samples = self._batches.read(position)
            self._timing.data_took(time.perf_counter() - began)
            return samples
        except BadSource as error:
            if self._run.data.stage_to is not None:
                raise damage_in_copy(Path(str(self._data.place_of(error.source))), error) from None
            raise record(self.ledger, self._run, position, error) from None

    def _save(self, progress: Progress, recorder: Recorder | None, stop: StopAgreement) -> None:
        began = time.perf_counter()
        self._saver.save(self._engine, progress)
        stop.save_took(time.perf_counter() - began)
        if recorder:
            folder = self._run_dir.checkpoint(progress.step)
            recorder.checkpoint(progress.step, folder, manifest_digest(folder))

    def _load(self, start: Checkpoint | None) -> Progress:
        """Fill the engine and say from where training goes on."""
        if start is None:
            self._engine.load(first_weights(self._run, self._model), 0)
            return Progress(step=0, tokens=0, position=0, updates=0)
        manifest = start.manifest
        updates = int(manifest.scalars["optimizer_steps"])
        self._engine.load(state_of(start, self._run, self._model), updates)
        behind = position_after(self._run_dir, manifest.step, manifest.position) if self._me.rank == 0 else 0
        position = from_rank_zero(behind)
        return Progress(step=manifest.step, tokens=manifest.tokens, position=position, updates=updates)

    def _roll_back(self, bad: Progress, recorder: Recorder | None, watchdog: Watchdog) -> Progress:
        """To the newest checkpoint, whence training goes on with the data behind the bad step."""
        watchdog.entered("load")
        to_step = self._load(find_start(self._run, self._run_dir, self._model, self._data, self._me))
        self._guards.rolled_back(step=bad.step, to_step=to_step.step, position=bad.position)
        if recorder:
            recorder.rolled_back(to_step.step)
        dist.barrier()  # the others read what rank 0 has recorded
        self._guards.begin(to_step.step)
        watchdog.entered("first step")
        return replace(to_step, position=bad.position)

    def _advance(self, before: Progress, result: StepResult) -> Progress:
        return Progress(
            step=before.step + 1,
            tokens=before.tokens + result.tokens,
            position=before.position + self._run.train.global_batch_size,
            updates=before.updates + (not result.skipped),
        )
