"""The training loop: the one caller of Engine.train_step. Launchers start `run_rank` by this module's name."""

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch.distributed as dist

from ..config.data import DataConfig
from ..config.errors import UserError
from ..config.layout import Layout
from ..config.layout_rules import layout_of
from ..config.loading import load_frozen
from ..config.model import ModelShape, read_model
from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..config.verdicts import FINISHED, SAVED
from ..storage.checkpoints.checkpoint import Checkpoint
from ..storage.checkpoints.manifest import manifest_digest
from ..storage.loading.training_data import BadSource, TrainingData
from ..tracking.gpu_sampler import GpuSampler
from ..tracking.ledger import LedgerWriter
from ..tracking.plot import plot_loss
from ..tracking.recorder import Recorder, StepRecord
from ..tracking.wandb_log import stable_wandb_id
from .bad_chunks import record, replace_recorded
from .batches import BatchReader
from .collectives import install
from .engine import Samples, StepResult
from .engines import build_engine, prepare
from .flight_record import operations_now
from .hang_report import Reporter
from .preflight import preflight
from .ranks import Rank, host_array, join
from .resume import find_start, first_weights
from .saving import Progress, Saver
from .schedule import learning_rate
from .staging import damage_in_copy, stage
from .stopping import StopAgreement
from .watchdog import HangLimits, Watchdog

_MOST_SKIPPED = 10  # updates in a row that may be skipped for a gradient that is not finite


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
        skipped = 0
        watchdog.entered("first step")
        with closing(self._batches), self._recorder() as recorder:
            while progress.step < self._run.train.steps and not stop.agreed(progress.step):
                began = time.perf_counter()
                rate = learning_rate(self._run.train, progress.step + 1)
                result = self._engine.train_step(self._read(progress.position), rate)
                progress = self._advance(progress, result)
                seconds = time.perf_counter() - began
                stop.step_took(seconds)
                watchdog.step_done(progress.step, seconds)
                if recorder:
                    recorder.step(_record(progress.step, result, rate, seconds))
                skipped = self._count_skipped(skipped, result, progress.step)
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
            _draw(self._run_dir)
        return finished

    def _read(self, position: int) -> Samples:
        try:
            return self._batches.read(position)
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
        self._engine.load(start, updates)
        return Progress(step=manifest.step, tokens=manifest.tokens, position=manifest.position, updates=updates)

    def _advance(self, before: Progress, result: StepResult) -> Progress:
        return Progress(
            step=before.step + 1,
            tokens=before.tokens + result.tokens,
            position=before.position + self._run.train.global_batch_size,
            updates=before.updates + (not result.skipped),
        )

    def _count_skipped(self, before: int, result: StepResult, step: int) -> int:
        if not result.skipped:
            return 0
        if before + 1 >= _MOST_SKIPPED:
            raise UserError(
                "train.optimizer.lr",
                f"the gradient was not finite in {_MOST_SKIPPED} steps in a row, up to step {step}",
                "lower the learning rate, or continue from an earlier checkpoint",
            )
        return before + 1

    @contextmanager
    def _recorder(self) -> Iterator[Recorder | None]:
        """Rank 0's recorder (every rank knows the loss), closed as finished only if nothing was raised.

        The first rank of each node samples that node's GPUs meanwhile.
        """
        me = self._me
        gpus = GpuSampler(self._run_dir.gpus(self._attempt, me.rank)) if me.local_rank == 0 else None
        recorder = Recorder(self._run, self._run_dir, self._attempt, gpus=gpus) if me.rank == 0 else None
        finished = False
        try:
            yield recorder
            finished = True
        finally:
            if gpus:
                gpus.close()
            if recorder:
                recorder.close(finished)


def _draw(run_dir: RunDir) -> None:
    try:
        plot_loss(run_dir)
    except Exception:  # a picture must not fail a run that has finished
        traceback.print_exc()


def _record(step: int, result: StepResult, rate: float, seconds: float) -> StepRecord:
    return StepRecord(
        step=step,
        loss=result.loss,
        grad_norm=result.grad_norm,
        lr=rate,
        tokens=result.tokens,
        seconds=seconds,
        routing=result.routing,
    )
